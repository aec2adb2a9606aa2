// Exponential, logarithm and sums on units of doubles, over a wrapper `D` (units.h): the same bits
// whatever `D`.
#pragma once

#include <cmath>

#include "head_workspace.h"
#include "units.h"

namespace mmcl {
namespace doubles {

constexpr double kExpLowest = -708.0;  // below, e^x is hardly a normal number: 0
constexpr double kLog2E = 0x1.71547652b82fep+0;
// log 2 in two parts; the first has 32 bits, so its product with an exponent is exact.
constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kRounder = 0x1.8p+52;  // adding it leaves the nearest integer in the lowest bits
// 1 / k!: for |r| <= log(2) / 2 the terms past r^13 are below 5e-18.
constexpr int kExpTerms = 14;
constexpr double kFactorial[kExpTerms] = {1.0,
                                          1.0,
                                          1.0 / 2,
                                          1.0 / 6,
                                          1.0 / 24,
                                          1.0 / 120,
                                          1.0 / 720,
                                          1.0 / 5040,
                                          1.0 / 40320,
                                          1.0 / 362880,
                                          1.0 / 3628800,
                                          1.0 / 39916800,
                                          1.0 / 479001600,
                                          1.0 / 6227020800.0};
// 2 artanh(t) = 2 t (1 + t^2 / 3 + t^4 / 5 + ...): for |t| <= 1/3 the terms past the last are below
// 2e-18.
constexpr int kArtanhTerms = 17;

// e^x for x <= 0; not-a-number stays.
template <class D>
MMCL_INLINE typename D::Float exp(typename D::Float x) {
  using Float = typename D::Float;
  const Float clipped = D::maximum(D::broadcast(kExpLowest), x);
  const Float shifted = D::fma(clipped, D::broadcast(kLog2E), D::broadcast(kRounder));
  const Float k = D::subtract(shifted, D::broadcast(kRounder));
  Float r = D::fma(k, D::broadcast(-kLn2High), clipped);
  r = D::fma(k, D::broadcast(-kLn2Low), r);
  Float p = D::broadcast(kFactorial[kExpTerms - 1]);
  MMCL_UNROLL(16)
  for (int i = kExpTerms - 2; i >= 0; --i) p = D::fma(p, r, D::broadcast(kFactorial[i]));
  return D::drop(D::less(x, D::broadcast(kExpLowest)), D::mul(p, D::two_to_the(shifted)));
}

// log(1 + x) for 0 <= x <= 1, with the relative accuracy of x.
template <class D>
MMCL_INLINE typename D::Float log1p(typename D::Float x) {
  using Float = typename D::Float;
  const Float t = D::divide(x, D::add(D::broadcast(2.0), x)), square = D::mul(t, t);
  Float p = D::broadcast(1.0 / (2 * kArtanhTerms + 1));
  MMCL_UNROLL(32)
  for (int i = kArtanhTerms - 1; i >= 0; --i) {
    p = D::fma(p, square, D::broadcast(1.0 / (2 * i + 1)));
  }
  const Float once = D::mul(t, p);
  return D::add(once, once);
}

// log(a / b) for positive whole numbers, by plain arithmetic: a library's result may differ by
// machine.
static inline double log_ratio(double a, double b) {
  int exponent;
  double u = std::frexp(a / b, &exponent);  // 1/2 .. 1
  if (u < 0x1.6a09e667f3bcdp-1) {
    u *= 2.0;
    --exponent;
  }
  const double t = (u - 1.0) / (u + 1.0), square = t * t;
  double p = 1.0 / (2 * kArtanhTerms + 1);
  for (int i = kArtanhTerms - 1; i >= 0; --i) p = p * square + 1.0 / (2 * i + 1);
  return exponent * kLn2High + (2.0 * t * p + exponent * kLn2Low);
}

template <class D>
MMCL_INLINE typename D::Float absolute(typename D::Float a) {
  return D::maximum(a, D::subtract(D::broadcast(0.0), a));
}

// The dot product of `size` elements; those past the end of a vector, up to a unit, must be 0.
template <class D>
static double dot(const double* a, const double* b, std::size_t size) {
  auto sums = D::broadcast(0.0);
  for (std::size_t i = 0; i < size; i += kDoubles) {
    sums = D::fma(D::load(a + i), D::load(b + i), sums);
  }
  return sum<D>(sums);
}

template <class D>
static double sum_of(const double* a, std::size_t size) {
  auto sums = D::broadcast(0.0);
  for (std::size_t i = 0; i < size; i += kDoubles) sums = D::add(sums, D::load(a + i));
  return sum<D>(sums);
}

static inline bool is_finite(double x) { return x - x == 0.0; }

}  // namespace doubles
}  // namespace mmcl

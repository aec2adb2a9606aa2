// Exponential, logarithm and activation on a unit of floats, over a wrapper `L` (units.h): the same
// bits whatever `L`.
#pragma once

#include "constants.h"
#include "units.h"

namespace mmcl {
namespace lanes {

// e^r = 1 + r + r^2 (c0 + c1 r + ...), |r| <= log(2) / 2, to 3e-9; by csrc/tools/fit_exp.py.
constexpr float kExp[5] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558acp-5f, 0x1.123976p-7f,
                           0x1.6a50bep-10f};
constexpr float kExpLowest = -87.0f;  // below, e^x is hardly a normal number: 0
constexpr float kLog2E = 0x1.715476p+0f;
constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
constexpr float kRounder = 0x1.8p+23f;  // adding it leaves the nearest integer in the lowest bits

// e^x for x <= 0; not-a-number stays.
template <class L>
MMCL_INLINE typename L::Float exp(typename L::Float x) {
  using Float = typename L::Float;
  const Float clipped = L::maximum(L::broadcast(kExpLowest), x);
  const Float shifted = L::fma(clipped, L::broadcast(kLog2E), L::broadcast(kRounder));
  const Float k = L::subtract(shifted, L::broadcast(kRounder));
  Float r = L::fma(k, L::broadcast(-kLn2High), clipped);
  r = L::fma(k, L::broadcast(-kLn2Low), r);
  Float p = L::broadcast(kExp[4]);
  MMCL_UNROLL(4)
  for (int i = 3; i >= 0; --i) p = L::fma(p, r, L::broadcast(kExp[i]));
  p = L::fma(L::mul(r, r), p, r);
  p = L::add(p, L::broadcast(1.0f));
  return L::drop(L::less(x, L::broadcast(kExpLowest)), L::mul(p, L::two_to_the(shifted)));
}

// log u for normal u >= 1/2; infinity and not-a-number give not-a-number.
template <class L>
MMCL_INLINE typename L::Float log(typename L::Float u) {
  using Float = typename L::Float;
  Float exponent, mantissa;  // the mantissa in sqrt(1/2) .. sqrt(2)
  L::split(u, exponent, mantissa);
  const Float t = L::subtract(mantissa, L::broadcast(1.0f));
  Float p = L::broadcast(kLog[kLogTerms - 1]);
  MMCL_UNROLL(8)
  for (int i = kLogTerms - 2; i >= 0; --i) p = L::fma(p, t, L::broadcast(kLog[i]));
  // The stream's polynomial is -2 log(1 + t) / t.
  const Float near = L::mul(L::mul(t, p), L::broadcast(-0.5f));
  const Float log = L::fma(exponent, L::broadcast(-0.5f * kMinus2Ln2), near);
  return L::add(log, L::subtract(u, u));
}

// log(1 + x), x >= 0, with the relative accuracy of x where it is small.
template <class L>
MMCL_INLINE typename L::Float log1p(typename L::Float x) {
  const auto u = L::add(L::broadcast(1.0f), x);
  const auto lost = L::subtract(x, L::subtract(u, L::broadcast(1.0f)));
  return L::add(log<L>(u), L::divide(lost, u));
}

// max(0, z)^q; not-a-number stays.
template <class L>
MMCL_INLINE typename L::Float activation(typename L::Float z, int q) {
  const auto base = L::maximum(L::broadcast(0.0f), z);
  auto power = base;
  for (int k = 1; k < q; ++k) power = L::mul(power, base);
  return power;
}

// q max(0, z)^(q - 1), and 0 at z = 0 for q = 1 too; times `a`.
template <class L>
MMCL_INLINE typename L::Float times_slope(typename L::Float a, typename L::Float z, int q) {
  const auto zero = L::broadcast(0.0f);
  const auto base = L::maximum(zero, z);
  for (int k = 1; k < q; ++k) a = L::mul(a, base);
  if (q > 1) a = L::mul(a, L::broadcast(static_cast<float>(q)));
  return L::keep(L::less(zero, z), a);
}

}  // namespace lanes
}  // namespace mmcl

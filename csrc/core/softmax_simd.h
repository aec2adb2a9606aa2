// Passes over one row of scores, written once over a wrapper `V` per instruction set.
//
// Every element goes through the same operations and every sum has the same shape for any V::width:
// kSumLanes partial sums along the row, element j in number j % kSumLanes, folded in halves.
#pragma once

#include <cmath>

#include "philox_simd.h"
#include "softmax_constants.h"
#include "target.h"

namespace mmcl {
namespace simd {

template <class V>
constexpr int kVectors = kSumLanes / V::width;

// Access to a whole vector, or to its first `count` elements.
template <class V>
struct Whole {
  MMCL_INLINE typename V::Float load(const float* from, float) const { return V::load(from); }
  MMCL_INLINE void store(float* to, typename V::Float a) const { V::store(to, a); }
};

template <class V>
struct First {
  std::size_t count;
  MMCL_INLINE typename V::Float load(const float* from, float rest) const {
    return V::load_padded(from, count, rest);
  }
  MMCL_INLINE void store(float* to, typename V::Float a) const { V::store_first(to, a, count); }
};

// step(access, i, k) for the vector at i of the row, which belongs to partial sums number k. On the
// way it fetches `next`, the row to come, whose pages the hardware does not foresee.
template <class V, class Step>
MMCL_INLINE void for_each_vector(std::size_t n, const float* next, Step step) {
  constexpr std::size_t kCacheLine = 16;
  std::size_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) {
    prefetch(next + i);
    prefetch(next + i + kCacheLine);
    MMCL_UNROLL(8)
    for (int k = 0; k < kVectors<V>; ++k) step(Whole<V>{}, i + k * V::width, k);
  }
  MMCL_UNROLL(8)
  for (int k = 0; k < kVectors<V>; ++k, i += V::width) {
    if (i + V::width <= n) {
      step(Whole<V>{}, i, k);
    } else if (i < n) {
      step(First<V>{n - i}, i, k);
    }
  }
}

template <class V>
struct Lanes {
  typename V::Float at[kVectors<V>];
  MMCL_INLINE explicit Lanes(float value) {
    MMCL_UNROLL(8)
    for (int k = 0; k < kVectors<V>; ++k) at[k] = V::broadcast(value);
  }
  MMCL_INLINE float sum() {
    MMCL_UNROLL(8)
    for (int half = kVectors<V> / 2; half > 0; half /= 2) {
      MMCL_UNROLL(8)
      for (int k = 0; k < half; ++k) at[k] = V::add(at[k], at[k + half]);
    }
    return V::sum(at[0]);
  }
  MMCL_INLINE float largest() {
    MMCL_UNROLL(8)
    for (int k = 1; k < kVectors<V>; ++k) at[0] = V::maximum(at[k], at[0]);
    return V::largest(at[0]);
  }
};

template <class V, int kTerms>
MMCL_INLINE typename V::Float polynomial(const float (&c)[kTerms], typename V::Float x) {
  auto p = V::broadcast(c[kTerms - 1]);
  MMCL_UNROLL(16)
  for (int k = kTerms - 2; k >= 0; --k) p = V::fma(p, x, V::broadcast(c[k]));
  return p;
}

// 2^x for x <= 129; 0 below -100, so never subnormal; not-a-number stays.
template <class V>
MMCL_INLINE typename V::Float power_of_two(typename V::Float x) {
  const auto n = V::nearest(x);
  const auto r = V::subtract(x, n.number);
  const auto c = [](int k) MMCL_INLINE_LAMBDA { return V::broadcast(kPower[k]); };
  // A third fewer steps that wait for one another than by Horner, and the same last step, which
  // makes most of the error.
  const auto r2 = V::mul(r, r);
  const auto upper = V::fma(r2, V::fma(c(6), r, c(5)), V::fma(c(4), r, c(3)));
  const auto p = V::fma(r, V::fma(r2, upper, V::fma(c(2), r, c(1))), c(0));
  return V::scale_unless_less(p, n, x, V::broadcast(kSmallestPower));
}

constexpr float kNothing = -INFINITY;  // its power is 0

template <class V>
static float row_largest(const float* scores, const float* next, std::size_t n) {
  Lanes<V> max(kLowestMax);
  for_each_vector<V>(n, next, [&](auto access, std::size_t i, int k) MMCL_INLINE_LAMBDA {
    max.at[k] = V::maximum(access.load(scores + i, kNothing), max.at[k]);
  });
  return max.largest();
}

template <class V>
static void column_largest(const float* scores, const float* next, std::size_t n, float* max) {
  for_each_vector<V>(n, next, [&](auto access, std::size_t i, int) MMCL_INLINE_LAMBDA {
    const auto s = access.load(scores + i, kNothing);
    access.store(max + i, V::maximum(s, access.load(max + i, kNothing)));
  });
}

template <class V>
static float both_largest(const float* scores, const float* next, std::size_t n,
                          float* column_max) {
  Lanes<V> max(kLowestMax);
  for_each_vector<V>(n, next, [&](auto access, std::size_t i, int k) MMCL_INLINE_LAMBDA {
    const auto s = access.load(scores + i, kNothing);
    max.at[k] = V::maximum(s, max.at[k]);
    access.store(column_max + i, V::maximum(s, access.load(column_max + i, kNothing)));
  });
  return max.largest();
}

template <class V>
static float row_terms(const float* scores, const float* next, float* out, std::size_t n,
                       float max) {
  Lanes<V> sums(0.0f);
  const auto t = V::broadcast(max);
  const auto pass = [&](auto write) MMCL_INLINE_LAMBDA {
    for_each_vector<V>(n, next, [&](auto access, std::size_t i, int k) MMCL_INLINE_LAMBDA {
      const auto p = power_of_two<V>(V::subtract(access.load(scores + i, kNothing), t));
      sums.at[k] = V::add(sums.at[k], p);
      write(access, i, p);
    });
  };
  if (out == nullptr) {
    pass([](auto, std::size_t, auto) MMCL_INLINE_LAMBDA {});
  } else {
    pass([out](auto access, std::size_t i, auto p)
             MMCL_INLINE_LAMBDA { access.store(out + i, p); });
  }
  return sums.sum();
}

template <class V>
static void column_terms(const float* scores, const float* next, float* out, std::size_t n,
                         const float* max, float* sum) {
  const auto pass = [&](auto write) MMCL_INLINE_LAMBDA {
    for_each_vector<V>(n, next, [&](auto access, std::size_t i, int) MMCL_INLINE_LAMBDA {
      const auto s = access.load(scores + i, kNothing);
      const auto p = power_of_two<V>(V::subtract(s, access.load(max + i, 0.0f)));
      access.store(sum + i, V::add(access.load(sum + i, 0.0f), p));
      write(access, i, p);
    });
  };
  if (out == nullptr) {
    pass([](auto, std::size_t, auto) MMCL_INLINE_LAMBDA {});
  } else {
    pass([out](auto access, std::size_t i, auto p)
             MMCL_INLINE_LAMBDA { access.store(out + i, p); });
  }
}

template <class V>
static float both_terms(const float* scores, const float* next, std::size_t n, float row_max,
                        const float* column_max, float* column_sum) {
  Lanes<V> sums(0.0f);
  const auto t = V::broadcast(row_max);
  for_each_vector<V>(n, next, [&](auto access, std::size_t i, int k) MMCL_INLINE_LAMBDA {
    const auto s = access.load(scores + i, kNothing);
    sums.at[k] = V::add(sums.at[k], power_of_two<V>(V::subtract(s, t)));
    const auto p = power_of_two<V>(V::subtract(s, access.load(column_max + i, 0.0f)));
    access.store(column_sum + i, V::add(access.load(column_sum + i, 0.0f), p));
  });
  return sums.sum();
}

// 2^(s - max), for any max; not-a-number stays, as the second argument of minimum.
template <class V>
MMCL_INLINE typename V::Float term(typename V::Float s, typename V::Float max) {
  return power_of_two<V>(V::minimum(V::broadcast(kInfinitePower), V::subtract(s, max)));
}

template <class V>
static void row_weights(float* scores, const float* next, std::size_t n, float max, float scale) {
  const auto t = V::broadcast(max), f = V::broadcast(scale);
  for_each_vector<V>(n, next, [&](auto access, std::size_t i, int) MMCL_INLINE_LAMBDA {
    const auto w = V::mul(term<V>(access.load(scores + i, kNothing), t), f);
    access.store(scores + i, V::without_subnormal(w));
  });
}

template <class V>
static void both_weights(float* scores, const float* next, std::size_t n, float row_max,
                         float row_scale, const float* column_max, const float* column_scale) {
  const auto t = V::broadcast(row_max), f = V::broadcast(row_scale);
  for_each_vector<V>(n, next, [&](auto access, std::size_t i, int) MMCL_INLINE_LAMBDA {
    const auto s = access.load(scores + i, kNothing);
    const auto row = V::mul(term<V>(s, t), f);
    const auto column = term<V>(s, access.load(column_max + i, 0.0f));
    const auto w = V::fma(column, access.load(column_scale + i, 0.0f), row);
    access.store(scores + i, V::without_subnormal(w));
  });
}

// Replaces s by 1 / (1 + 2^-s); returns the sum of log2(1 + 2^s).
template <class V>
static float softplus(float* scores, const float* next, std::size_t n) {
  Lanes<V> sums(0.0f);
  const auto zero = V::broadcast(0.0f), one = V::broadcast(1.0f);
  for_each_vector<V>(n, next, [&](auto access, std::size_t i, int k) MMCL_INLINE_LAMBDA {
    const auto s = access.load(scores + i, kNothing);
    const auto decay = power_of_two<V>(V::minimum(s, V::subtract(zero, s)));  // 2^-|s|
    const auto tail = V::mul(decay, polynomial<V>(kLog1p, decay));
    sums.at[k] = V::add(sums.at[k], V::add(V::maximum(s, zero), tail));
    const auto above = V::select(V::less(s, zero), decay, one);
    access.store(scores + i, V::divide(above, V::add(one, decay)));
  });
  return sums.sum();
}

template <class V>
static float sum(const float* x, std::size_t n) {
  Lanes<V> sums(0.0f);
  for_each_vector<V>(n, x, [&](auto access, std::size_t i, int k) MMCL_INLINE_LAMBDA {
    sums.at[k] = V::add(sums.at[k], access.load(x + i, 0.0f));
  });
  return sums.sum();
}

template <class V>
static float dot(const float* x, const float* y, std::size_t n) {
  Lanes<V> sums(0.0f);
  for_each_vector<V>(n, x, [&](auto access, std::size_t i, int k) MMCL_INLINE_LAMBDA {
    sums.at[k] = V::fma(access.load(x + i, 0.0f), access.load(y + i, 0.0f), sums.at[k]);
  });
  return sums.sum();
}

template <class V>
constexpr SoftmaxKernels kSoftmax{
    row_largest<V>, column_largest<V>, both_largest<V>, row_terms<V>, column_terms<V>,
    both_terms<V>,  row_weights<V>,    both_weights<V>, softplus<V>,  sum<V>,
    dot<V>};

}  // namespace simd
}  // namespace mmcl

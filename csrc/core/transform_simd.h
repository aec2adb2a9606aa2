// The normal transform of docs/stream.md on the four words of V::width blocks, over a wrapper `V`.
//
// A polynomial is a chain of dependent operations, and so are Philox's rounds; each alone leaves
// the vector units half idle. So the transform takes other work, `between.begin()` and then
// six times `between.next()`, and spreads it over the longest polynomial.
#pragma once

#include "philox_simd.h"

namespace mmcl {
namespace simd {

// The logarithm's arguments: -2 log u = fma(t, L(t), e). `a` is the *complement* of the word.
template <class V>
MMCL_INLINE void reduce(typename V::Int a, typename V::Float& t, typename V::Float& e) {
  using Float = typename V::Float;
  using Int = typename V::Int;
  const Int complement = V::template shift_right<1>(a);  // of the 31 bits v
  const auto far = V::greater(complement, V::integer(0x7fffffff - kLogSplit - 1));
  const Int v = V::xor_where(far, complement, V::integer(0x7fffffff));
  const Float f = V::add(V::to_float(v), V::broadcast(0.5f));
  // The specification's b less 31 << 23: its upper bits are the exponent, ready for conversion.
  const Int b = V::subtract(V::bits(f), V::integer(kLogBits + (31 << 23) - V::exponent_bias));
  const Int m = V::add(V::bit_and(b, V::integer(kMantissa)), V::integer(kLogBits));
  e = V::keep(far, V::mul(V::exponent(b), V::broadcast(kMinus2Ln2)));
  t = V::select(far, V::subtract(V::as_float(m), V::broadcast(1.0f)),
                V::mul(f, V::broadcast(-0x1p-31f)));
}

template <class V, class Between>
MMCL_INLINE void box_muller(const typename V::Int (&words)[4], typename V::Float (&z)[4],
                            Between between) {
  using Float = typename V::Float;
  Float t[2], e[2], x[2], x2[2], log[2], cos[2], sin[2];
  MMCL_UNROLL(2)
  for (int n = 0; n < 2; ++n) reduce<V>(words[2 * n], t[n], e[n]);
  between.begin();
  MMCL_UNROLL(2)
  for (int n = 0; n < 2; ++n) {
    const auto angle = V::to_float(V::shift_left_2_or_2(words[2 * n + 1]));
    x[n] = V::mul(angle, V::broadcast(0x1p-31f));
    x2[n] = V::mul(x[n], x[n]);
    log[n] = V::broadcast(kLog[kLogTerms - 1]);
    cos[n] = V::broadcast(kCos[kCosTerms - 1]);
    sin[n] = V::broadcast(kSin[kSinTerms - 1]);
  }
  MMCL_UNROLL(8)
  for (int k = kLogTerms - 2; k >= 0; --k) {
    if (k > 1) between.next();
    MMCL_UNROLL(2)
    for (int n = 0; n < 2; ++n) {
      log[n] = V::fma(log[n], t[n], V::broadcast(kLog[k]));
      if (k < kCosTerms - 1) cos[n] = V::fma(cos[n], x2[n], V::broadcast(kCos[k]));
      if (k < kSinTerms - 1) sin[n] = V::fma(sin[n], x2[n], V::broadcast(kSin[k]));
    }
  }
  MMCL_UNROLL(2)
  for (int n = 0; n < 2; ++n) {
    // The signs are arranged to cost little: bit 31 turns the radius, bit 30 (which also swaps sine
    // and cosine) the first of the two.
    sin[n] = V::mul(x[n], sin[n]);
    V::turn_where_bit_30(words[2 * n + 1], cos[n], sin[n]);
    const Float size = V::sqrt(V::fma(t[n], log[n], e[n]));
    const Float r = V::copy_sign_bit(size, words[2 * n + 1]);
    z[2 * n] = V::mul(r, cos[n]);
    z[2 * n + 1] = V::mul(r, sin[n]);
  }
}

}  // namespace simd
}  // namespace mmcl

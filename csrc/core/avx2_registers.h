// AVX2 with FMA: registers of eight floats and of four doubles; selections by bit logic.
#pragma once

#include <immintrin.h>

#include "constants.h"
#include "softmax_constants.h"
#include "units.h"

namespace mmcl {
namespace {

struct Avx2Float8 {
  using Scalar = float;
  using Wide = __m256i;
  using Int = __m256i;
  using Float = __m256;
  using Mask = __m256i;
  static constexpr int width = 8;
  static constexpr bool packed_philox = false;
  static constexpr int gram_rows = 3, gram_columns = 4;  // 12 of 16 registers hold sums

  static MMCL_INLINE Wide wide(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static MMCL_INLINE Wide wide(std::uint64_t x) {
    return _mm256_set1_epi64x(static_cast<long long>(x));
  }
  static MMCL_INLINE Wide wide_add(Wide a, Wide b) { return _mm256_add_epi64(a, b); }
  static MMCL_INLINE Wide even_lanes() { return _mm256_setr_epi64x(0, 2, 4, 6); }
  static MMCL_INLINE Wide odd_lanes() { return _mm256_setr_epi64x(1, 3, 5, 7); }
  static MMCL_INLINE Wide mul(Wide a, Wide b) { return _mm256_mul_epu32(a, b); }
  static MMCL_INLINE Wide high(Wide p) { return _mm256_shuffle_epi32(p, _MM_SHUFFLE(3, 3, 1, 1)); }
  static MMCL_INLINE Wide exclusive_or(Wide a, Wide b) { return _mm256_xor_si256(a, b); }
  static MMCL_INLINE Wide exclusive_or(Wide a, Wide b, Wide c) {
    return _mm256_xor_si256(a, _mm256_xor_si256(b, c));
  }
  static MMCL_INLINE Int pack(Wide even, Wide odd) {
    return _mm256_blend_epi32(even, _mm256_shuffle_epi32(odd, _MM_SHUFFLE(2, 2, 0, 0)), 0xAA);
  }
  static MMCL_INLINE Int pack_high(Wide even, Wide odd) {
    return _mm256_blend_epi32(high(even), odd, 0xAA);
  }

  static MMCL_INLINE Int integer(std::int32_t x) { return _mm256_set1_epi32(x); }
  static MMCL_INLINE Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static MMCL_INLINE Int subtract(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static MMCL_INLINE Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
  static MMCL_INLINE Int bit_xor(Int a, Int b) { return _mm256_xor_si256(a, b); }
  template <int kBits>
  static MMCL_INLINE Int shift_right(Int a) {
    return _mm256_srli_epi32(a, kBits);
  }
  template <int kBits>
  static MMCL_INLINE Int shift_left(Int a) {
    return _mm256_slli_epi32(a, kBits);
  }
  static MMCL_INLINE Int shift_left_2_or_2(Int a) {
    return _mm256_or_si256(_mm256_slli_epi32(a, 2), integer(2));
  }
  static MMCL_INLINE Mask greater(Int a, Int b) { return _mm256_cmpgt_epi32(a, b); }
  static MMCL_INLINE Int xor_where(Mask m, Int a, Int b) { return bit_xor(a, bit_and(m, b)); }

  static MMCL_INLINE Float broadcast(float x) { return _mm256_set1_ps(x); }
  static MMCL_INLINE Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static MMCL_INLINE Float subtract(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static MMCL_INLINE Float load(const float* from) { return _mm256_loadu_ps(from); }
  static MMCL_INLINE float sum(Float a) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  // The larger or smaller element; b where either is not-a-number.
  static MMCL_INLINE Float maximum(Float a, Float b) { return _mm256_max_ps(a, b); }
  static MMCL_INLINE Float minimum(Float a, Float b) { return _mm256_min_ps(a, b); }
  static MMCL_INLINE float largest(Float a) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  static MMCL_INLINE Mask less(Float a, Float b) { return bits(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
  static MMCL_INLINE Mask both(Mask a, Mask b) { return bit_and(a, b); }
  // A register that holds lanes begin, begin + 1, ... of a unit: the lanes before `lanes`.
  static MMCL_INLINE Mask first(std::size_t lanes, int begin = 0) {
    const Int limit = integer(lanes > 16 ? 16 : static_cast<int>(lanes));
    return greater(limit, add(integer(begin), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
  }
  static MMCL_INLINE std::uint32_t set_lanes(Mask m) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(as_float(m)));
  }
  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes, int begin) {
    return _mm256_maskload_ps(from, first(lanes, begin));
  }
  static MMCL_INLINE Float load_padded(const float* from, std::size_t lanes, float rest) {
    const Mask m = first(lanes);
    return select(m, _mm256_maskload_ps(from, m), broadcast(rest));
  }
  static MMCL_INLINE void store(float* to, Float a) { _mm256_storeu_ps(to, a); }
  static MMCL_INLINE void store_first(float* to, Float a, std::size_t lanes, int begin = 0) {
    _mm256_maskstore_ps(to, first(lanes, begin), a);
  }
  struct Nearest {
    Float number, half_power;
  };
  static MMCL_INLINE Nearest nearest(Float x) {
    const Float shift = broadcast(kRoundToExponent), shifted = add(x, shift);
    return {subtract(shifted, shift), as_float(shift_left<23>(bits(shifted)))};
  }
  // a * 2^n, but 0 where x < limit. Products, where additions to the exponent would do, because
  // they keep not-a-number.
  static MMCL_INLINE Float scale_unless_less(Float a, Nearest n, Float x, Float limit) {
    const Float half = mul(a, n.half_power);
    return drop(less(x, limit), add(half, half));
  }
  // Subnormal elements and -0 become +0.
  static MMCL_INLINE Float without_subnormal(Float a) {
    const Float size = _mm256_andnot_ps(broadcast(-0.0f), a);
    return _mm256_and_ps(a, _mm256_cmp_ps(size, broadcast(0x1p-126f), _CMP_NLT_UQ));
  }
  static MMCL_INLINE Float divide(Float a, Float b) { return _mm256_div_ps(a, b); }
  static MMCL_INLINE Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static MMCL_INLINE Float sqrt(Float a) { return _mm256_sqrt_ps(a); }
  static MMCL_INLINE Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }
  static MMCL_INLINE Int bits(Float a) { return _mm256_castps_si256(a); }
  static MMCL_INLINE Float as_float(Int a) { return _mm256_castsi256_ps(a); }
  static constexpr std::int32_t exponent_bias = 0;
  static MMCL_INLINE Float exponent(Int b) { return to_float(_mm256_srai_epi32(b, 23)); }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) {
    return _mm256_blendv_ps(b, a, as_float(m));
  }
  static MMCL_INLINE Float keep(Mask m, Float a) { return _mm256_and_ps(as_float(m), a); }
  static MMCL_INLINE Float drop(Mask m, Float a) { return _mm256_andnot_ps(as_float(m), a); }
  // Where bit 30 of b is set: (x, y) becomes (-y, x).
  static MMCL_INLINE void turn_where_bit_30(Int b, Float& x, Float& y) {
    const Int shifted = shift_left<1>(b);
    const Int difference = bit_and(_mm256_srai_epi32(shifted, 31), bit_xor(bits(x), bits(y)));
    x = as_float(bit_xor(bit_xor(bits(x), difference), bit_and(shifted, integer(INT32_MIN))));
    y = as_float(bit_xor(bits(y), difference));
  }
  static MMCL_INLINE Float copy_sign_bit(Float a, Int b) {  // for a > 0
    return as_float(_mm256_or_si256(bits(a), bit_and(b, integer(INT32_MIN))));
  }

  template <bool kStream>
  static MMCL_INLINE void store(float* out, Float a) {
    kStream ? _mm256_stream_ps(out, a) : _mm256_storeu_ps(out, a);
  }
  template <bool kStream>
  static MMCL_INLINE void store(std::uint32_t* out, Int a) {
    auto* to = reinterpret_cast<Int*>(out);
    kStream ? _mm256_stream_si256(to, a) : _mm256_storeu_si256(to, a);
  }
  template <bool kStream>
  static MMCL_INLINE void store_bf16(std::uint16_t* out, Float a) {
    const Int odd = bit_and(shift_right<16>(bits(a)), integer(1));
    const Int upper = shift_right<16>(add(bits(a), add(odd, integer(0x7fff))));
    const Int paired = _mm256_packus_epi32(upper, upper);  // within 128-bit halves
    const Int ordered = _mm256_permute4x64_epi64(paired, _MM_SHUFFLE(3, 1, 2, 0));
    auto* to = reinterpret_cast<__m128i*>(out);
    const __m128i half = _mm256_castsi256_si128(ordered);
    kStream ? _mm_stream_si128(to, half) : _mm_storeu_si128(to, half);
  }
  template <bool kStream>
  static MMCL_INLINE void store_scaled(double* out, Float a, double scale) {
    const __m256d s = _mm256_set1_pd(scale);
    const __m256d low = _mm256_mul_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(a)), s);
    const __m256d high = _mm256_mul_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)), s);
    kStream ? _mm256_stream_pd(out, low) : _mm256_storeu_pd(out, low);
    kStream ? _mm256_stream_pd(out + 4, high) : _mm256_storeu_pd(out + 4, high);
  }

  static MMCL_INLINE Float two_to_the(Float shifted) {
    return as_float(add(shift_left<23>(bits(shifted)), integer(127 << 23)));
  }
  static MMCL_INLINE void split(Float u, Float& exponent, Float& mantissa) {
    const Int b = subtract(bits(u), integer(kLogBits));
    exponent = to_float(_mm256_srai_epi32(b, 23));
    mantissa = as_float(add(bit_and(b, integer(kMantissa)), integer(kLogBits)));
  }
};

struct Avx2Double4 {
  using Scalar = double;
  using Float = __m256d;
  using Mask = __m256i;
  static constexpr int width = 4;

  static MMCL_INLINE Float broadcast(double x) { return _mm256_set1_pd(x); }
  static MMCL_INLINE Float load(const double* from) { return _mm256_loadu_pd(from); }
  static MMCL_INLINE void store(double* to, Float a) { _mm256_storeu_pd(to, a); }
  // A register that holds lanes begin, begin + 1, ... of a unit: the lanes before `lanes`.
  static MMCL_INLINE Float load_first(const double* from, std::size_t lanes, int begin) {
    const __m256i limit = _mm256_set1_epi64x(lanes > 8 ? 8 : static_cast<long long>(lanes));
    const __m256i lane = _mm256_setr_epi64x(begin, begin + 1, begin + 2, begin + 3);
    return _mm256_maskload_pd(from, _mm256_cmpgt_epi64(limit, lane));
  }
  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes, int begin) {
    const __m128i limit = _mm_set1_epi32(lanes > 8 ? 8 : static_cast<int>(lanes));
    const __m128i lane = _mm_setr_epi32(begin, begin + 1, begin + 2, begin + 3);
    return _mm256_cvtps_pd(_mm_maskload_ps(from, _mm_cmpgt_epi32(limit, lane)));
  }
  static MMCL_INLINE Float add(Float a, Float b) { return _mm256_add_pd(a, b); }
  static MMCL_INLINE Float subtract(Float a, Float b) { return _mm256_sub_pd(a, b); }
  static MMCL_INLINE Float mul(Float a, Float b) { return _mm256_mul_pd(a, b); }
  static MMCL_INLINE Float divide(Float a, Float b) { return _mm256_div_pd(a, b); }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) { return _mm256_fmadd_pd(a, b, c); }
  static MMCL_INLINE Float sqrt(Float a) { return _mm256_sqrt_pd(a); }
  static MMCL_INLINE Float maximum(Float a, Float b) { return _mm256_max_pd(a, b); }
  static MMCL_INLINE Float minimum(Float a, Float b) { return _mm256_min_pd(a, b); }
  static MMCL_INLINE Mask less(Float a, Float b) {
    return _mm256_castpd_si256(_mm256_cmp_pd(a, b, _CMP_LT_OQ));
  }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) {
    return _mm256_blendv_pd(b, a, _mm256_castsi256_pd(m));
  }
  static MMCL_INLINE Float drop(Mask m, Float a) {
    return _mm256_andnot_pd(_mm256_castsi256_pd(m), a);
  }
  static MMCL_INLINE Float two_to_the(Float shifted) {
    const __m256i exponent = _mm256_slli_epi64(_mm256_castpd_si256(shifted), 52);
    return _mm256_castsi256_pd(_mm256_add_epi64(exponent, _mm256_set1_epi64x(1023ll << 52)));
  }
};

}  // namespace
}  // namespace mmcl

// AVX-512 (F, DQ, BW, VL): a register is a unit (units.h); three-way logic, masks.
#pragma once

#include <immintrin.h>

#include "constants.h"
#include "units.h"

namespace mmcl {
namespace {

struct Avx512Floats {
  using Scalar = float;
  using Wide = __m512i;
  using Int = __m512i;
  using Float = __m512;
  using Mask = __mmask16;
  static constexpr int width = 16;
  static constexpr bool packed_philox = false;
  // Units of a tile or strip whose sums stay in the 32 registers.
  static constexpr int score_rows = 6, score_units = 4, change_units = 8, update_units = 8;
  static constexpr std::size_t dot_rows = 4, dot_columns = 4;
  static constexpr int gram_rows = 4, gram_columns = 6;  // 24 of 32 registers hold sums

  static MMCL_INLINE Wide wide(std::uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static MMCL_INLINE Wide wide(std::uint64_t x) {
    return _mm512_set1_epi64(static_cast<long long>(x));
  }
  static MMCL_INLINE Wide wide_add(Wide a, Wide b) { return _mm512_add_epi64(a, b); }
  static MMCL_INLINE Wide even_lanes() { return _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14); }
  static MMCL_INLINE Wide odd_lanes() { return _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15); }
  static MMCL_INLINE Wide mul(Wide a, Wide b) { return _mm512_mul_epu32(a, b); }
  // A shuffle instead of a shift: it runs on the port that the multiplications leave free.
  static MMCL_INLINE Wide high(Wide p) { return _mm512_shuffle_epi32(p, _MM_PERM_DDBB); }
  static MMCL_INLINE Wide exclusive_or(Wide a, Wide b) { return _mm512_xor_si512(a, b); }
  static MMCL_INLINE Wide exclusive_or(Wide a, Wide b, Wide c) {
    return _mm512_ternarylogic_epi32(a, b, c, 0x96);
  }
  static MMCL_INLINE Int pack(Wide even, Wide odd) {
    return _mm512_mask_shuffle_epi32(even, 0xAAAA, odd, _MM_PERM_CCAA);
  }
  static MMCL_INLINE Int pack_high(Wide even, Wide odd) {
    return _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
  }

  static MMCL_INLINE Int integer(std::int32_t x) { return _mm512_set1_epi32(x); }
  static MMCL_INLINE Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static MMCL_INLINE Int subtract(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static MMCL_INLINE Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
  static MMCL_INLINE Int bit_xor(Int a, Int b) { return _mm512_xor_si512(a, b); }
  template <int kBits>
  static MMCL_INLINE Int shift_right(Int a) {
    return _mm512_srli_epi32(a, kBits);
  }
  template <int kBits>
  static MMCL_INLINE Int shift_left(Int a) {
    return _mm512_slli_epi32(a, kBits);
  }
  static MMCL_INLINE Int shift_left_2_or_2(Int a) {
    return _mm512_or_si512(_mm512_slli_epi32(a, 2), integer(2));
  }
  static MMCL_INLINE Mask greater(Int a, Int b) { return _mm512_cmpgt_epi32_mask(a, b); }
  static MMCL_INLINE Int xor_where(Mask m, Int a, Int b) {
    return _mm512_mask_xor_epi32(a, m, a, b);
  }

  static MMCL_INLINE Float broadcast(float x) { return _mm512_set1_ps(x); }
  static MMCL_INLINE Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static MMCL_INLINE Float subtract(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static MMCL_INLINE Float load(const float* from) { return _mm512_loadu_ps(from); }
  static MMCL_INLINE float sum(Float a) { return _mm512_reduce_add_ps(a); }
  // The larger or smaller element; b where either is not-a-number.
  static MMCL_INLINE Float maximum(Float a, Float b) { return _mm512_max_ps(a, b); }
  static MMCL_INLINE Float minimum(Float a, Float b) { return _mm512_min_ps(a, b); }
  static MMCL_INLINE float largest(Float a) { return _mm512_reduce_max_ps(a); }
  static MMCL_INLINE Mask less(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static MMCL_INLINE Mask both(Mask a, Mask b) { return a & b; }
  static MMCL_INLINE Mask first(std::size_t lanes) {
    return static_cast<Mask>(lanes >= 16 ? 0xffffu : (1u << lanes) - 1u);
  }
  static MMCL_INLINE std::size_t count(Mask m) { return static_cast<std::size_t>(count_bits(m)); }
  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes) {
    return _mm512_maskz_loadu_ps(first(lanes), from);
  }
  static MMCL_INLINE Float load_padded(const float* from, std::size_t lanes, float rest) {
    return _mm512_mask_loadu_ps(broadcast(rest), first(lanes), from);
  }
  static MMCL_INLINE void store(float* to, Float a) { _mm512_storeu_ps(to, a); }
  static MMCL_INLINE void store_first(float* to, Float a, std::size_t lanes) {
    _mm512_mask_storeu_ps(to, first(lanes), a);
  }
  struct Nearest {
    Float number;
  };
  static MMCL_INLINE Nearest nearest(Float x) {
    return {_mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  // a * 2^n, but 0 where x < limit.
  static MMCL_INLINE Float scale_unless_less(Float a, Nearest n, Float x, Float limit) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), a, n.number);
  }
  // Subnormal elements and -0 become +0.
  static MMCL_INLINE Float without_subnormal(Float a) {
    constexpr int kNegativeZero = 0x04, kSubnormal = 0x20;
    const Mask m = _mm512_fpclass_ps_mask(a, kNegativeZero | kSubnormal);
    return _mm512_mask_mov_ps(a, m, broadcast(0.0f));
  }
  static MMCL_INLINE Float divide(Float a, Float b) { return _mm512_div_ps(a, b); }
  static MMCL_INLINE Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static MMCL_INLINE Float sqrt(Float a) { return _mm512_sqrt_ps(a); }
  static MMCL_INLINE Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }
  static MMCL_INLINE Int bits(Float a) { return _mm512_castps_si512(a); }
  static MMCL_INLINE Float as_float(Int a) { return _mm512_castsi512_ps(a); }
  // The bits of a float with the exponent in question.
  static constexpr std::int32_t exponent_bias = 127 << 23;
  static MMCL_INLINE Float exponent(Int b) { return _mm512_getexp_ps(as_float(b)); }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) {
    return _mm512_mask_blend_ps(m, b, a);
  }
  static MMCL_INLINE Float keep(Mask m, Float a) { return _mm512_maskz_mov_ps(m, a); }
  static MMCL_INLINE Float drop(Mask m, Float a) { return keep(static_cast<Mask>(~m), a); }
  // Where bit 30 of b is set: (x, y) becomes (-y, x).
  static MMCL_INLINE void turn_where_bit_30(Int b, Float& x, Float& y) {
    const Mask turn = _mm512_test_epi32_mask(b, integer(0x40000000));
    const Float old = x;
    x = _mm512_mask_xor_ps(x, turn, y, broadcast(-0.0f));
    y = select(turn, old, y);
  }
  static MMCL_INLINE Float copy_sign_bit(Float a, Int b) {  // for a > 0
    return as_float(_mm512_ternarylogic_epi32(bits(a), b, integer(INT32_MIN), 0xf8));
  }

  template <bool kStream>
  static MMCL_INLINE void store(float* out, Float a) {
    kStream ? _mm512_stream_ps(out, a) : _mm512_storeu_ps(out, a);
  }
  template <bool kStream>
  static MMCL_INLINE void store(std::uint32_t* out, Int a) {
    kStream ? _mm512_stream_si512(reinterpret_cast<Int*>(out), a) : _mm512_storeu_si512(out, a);
  }
  template <bool kStream>
  static MMCL_INLINE void store_bf16(std::uint16_t* out, Float a) {
    const Int odd = bit_and(shift_right<16>(bits(a)), integer(1));
    const Int rounded = add(bits(a), add(odd, integer(0x7fff)));
    const __m256i half = _mm512_cvtepi32_epi16(shift_right<16>(rounded));
    auto* to = reinterpret_cast<__m256i*>(out);
    kStream ? _mm256_stream_si256(to, half) : _mm256_storeu_si256(to, half);
  }
  template <bool kStream>
  static MMCL_INLINE void store_scaled(double* out, Float a, double scale) {
    const __m512d s = _mm512_set1_pd(scale);
    const __m512d low = _mm512_mul_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(a)), s);
    const __m512d high = _mm512_mul_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1)), s);
    kStream ? _mm512_stream_pd(out, low) : _mm512_storeu_pd(out, low);
    kStream ? _mm512_stream_pd(out + 8, high) : _mm512_storeu_pd(out + 8, high);
  }

  // Writes sixteen integers; the first are `start` plus the indices of the set lanes.
  static MMCL_INLINE std::size_t append(Mask m, std::int32_t start, std::int32_t* to) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i indices = _mm512_add_epi32(lanes, _mm512_set1_epi32(start));
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(m, indices));
    return count(m);
  }

  static MMCL_INLINE Float two_to_the(Float shifted) {
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(127 << 23)));
  }
  static MMCL_INLINE void split(Float u, Float& exponent, Float& mantissa) {
    const __m512i b = _mm512_sub_epi32(_mm512_castps_si512(u), _mm512_set1_epi32(kLogBits));
    exponent = _mm512_cvtepi32_ps(_mm512_srai_epi32(b, 23));
    const __m512i low = _mm512_and_si512(b, _mm512_set1_epi32(kMantissa));
    mantissa = _mm512_castsi512_ps(_mm512_add_epi32(low, _mm512_set1_epi32(kLogBits)));
  }

  // A 16 x 16 block: quarters of four rows side by side, then 4 x 4 transposes within them.
  static MMCL_INLINE void transpose(const float* from, std::size_t stride, float* to,
                                    std::size_t to_stride) {
    for (std::size_t column = 0; column < 16; column += 4) {
      Float row[4];
      MMCL_UNROLL(4)
      for (std::size_t k = 0; k < 4; ++k) {
        const float* const at = from + k * stride + column;
        row[k] = _mm512_castps128_ps512(_mm_loadu_ps(at));
        row[k] = _mm512_insertf32x4(row[k], _mm_loadu_ps(at + 4 * stride), 1);
        row[k] = _mm512_insertf32x4(row[k], _mm_loadu_ps(at + 8 * stride), 2);
        row[k] = _mm512_insertf32x4(row[k], _mm_loadu_ps(at + 12 * stride), 3);
      }
      const Float a = _mm512_unpacklo_ps(row[0], row[1]), b = _mm512_unpackhi_ps(row[0], row[1]);
      const Float c = _mm512_unpacklo_ps(row[2], row[3]), d = _mm512_unpackhi_ps(row[2], row[3]);
      const Float columns[4] = {_mm512_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0)),
                                _mm512_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2)),
                                _mm512_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0)),
                                _mm512_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2))};
      MMCL_UNROLL(4)
      for (std::size_t k = 0; k < 4; ++k) store(to + (column + k) * to_stride, columns[k]);
    }
  }
};

struct Avx512Doubles {
  using Scalar = double;
  using Float = __m512d;
  using Mask = __mmask8;
  static constexpr int width = 8;
  // Units of a tile whose sums stay in the 32 registers.
  static constexpr int combine_units = 14, gram_rows = 8, gram_units = 3, factor_units = 4;

  static MMCL_INLINE Float broadcast(double x) { return _mm512_set1_pd(x); }
  static MMCL_INLINE Float load(const double* from) { return _mm512_loadu_pd(from); }
  static MMCL_INLINE void store(double* to, Float a) { _mm512_storeu_pd(to, a); }
  static MMCL_INLINE Float load_first(const double* from, std::size_t lanes) {
    return _mm512_maskz_loadu_pd(first(lanes), from);
  }
  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes) {
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(first(lanes), from));
  }
  static MMCL_INLINE Float add(Float a, Float b) { return _mm512_add_pd(a, b); }
  static MMCL_INLINE Float subtract(Float a, Float b) { return _mm512_sub_pd(a, b); }
  static MMCL_INLINE Float mul(Float a, Float b) { return _mm512_mul_pd(a, b); }
  static MMCL_INLINE Float divide(Float a, Float b) { return _mm512_div_pd(a, b); }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_pd(a, b, c); }
  static MMCL_INLINE Float sqrt(Float a) { return _mm512_sqrt_pd(a); }
  static MMCL_INLINE Float maximum(Float a, Float b) { return _mm512_max_pd(a, b); }
  static MMCL_INLINE Float minimum(Float a, Float b) { return _mm512_min_pd(a, b); }
  static MMCL_INLINE Mask less(Float a, Float b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) {
    return _mm512_mask_blend_pd(m, b, a);
  }
  static MMCL_INLINE Float drop(Mask m, Float a) {
    return _mm512_maskz_mov_pd(static_cast<Mask>(~m), a);
  }
  static MMCL_INLINE Float two_to_the(Float shifted) {
    const __m512i exponent = _mm512_slli_epi64(_mm512_castpd_si512(shifted), 52);
    return _mm512_castsi512_pd(_mm512_add_epi64(exponent, _mm512_set1_epi64(1023ll << 52)));
  }

 private:
  static MMCL_INLINE Mask first(std::size_t lanes) {
    return static_cast<Mask>(lanes >= 8 ? 0xffu : (1u << lanes) - 1u);
  }
};

}  // namespace
}  // namespace mmcl

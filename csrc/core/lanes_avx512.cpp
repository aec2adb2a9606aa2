// Sixteen lanes of AVX-512 for inner products, training runs and embeddings.
#if defined(__x86_64__)
#include <immintrin.h>

#include "embed_simd.h"
#include "inner_products_simd.h"
#include "lanes.h"
#include "target.h"
#include "trajectory_simd.h"

namespace mmcl {
namespace {

struct Avx512Lanes {
  using Float = __m512;
  using Mask = __mmask16;
  // Units of a tile or strip whose sums stay in the 32 registers.
  static constexpr int score_rows = 6, score_units = 4, pull_units = 8, move_units = 8;
  static constexpr std::size_t dot_rows = 4, dot_columns = 4;

  static MMCL_INLINE Float broadcast(float x) { return _mm512_set1_ps(x); }
  static MMCL_INLINE Float load(const float* from) { return _mm512_loadu_ps(from); }
  static MMCL_INLINE void store(float* to, Float a) { _mm512_storeu_ps(to, a); }
  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes) {
    return _mm512_maskz_loadu_ps(first(lanes), from);
  }
  static MMCL_INLINE void store_first(float* to, Float a, std::size_t lanes) {
    _mm512_mask_storeu_ps(to, first(lanes), a);
  }
  static MMCL_INLINE Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static MMCL_INLINE Float subtract(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static MMCL_INLINE Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static MMCL_INLINE Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static MMCL_INLINE Float larger(Float a, Float b) { return _mm512_max_ps(a, b); }

  static MMCL_INLINE Mask less(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static MMCL_INLINE Mask both(Mask a, Mask b) { return a & b; }
  static MMCL_INLINE Mask first(std::size_t lanes) {
    return static_cast<Mask>(lanes >= 16 ? 0xffffu : (1u << lanes) - 1u);
  }
  static MMCL_INLINE std::size_t count(Mask m) {
    return static_cast<std::size_t>(__builtin_popcount(m));
  }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) {
    return _mm512_mask_blend_ps(m, b, a);
  }
  static MMCL_INLINE Float keep(Mask m, Float a) { return _mm512_maskz_mov_ps(m, a); }
  static MMCL_INLINE Float drop(Mask m, Float a) { return keep(static_cast<Mask>(~m), a); }
  // Writes sixteen numbers, of which the first are `start` plus the lanes that are set.
  static MMCL_INLINE std::size_t append(Mask m, std::int32_t start, std::int32_t* to) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i found = _mm512_add_epi32(lanes, _mm512_set1_epi32(start));
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(m, found));
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
#pragma GCC unroll 4
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
#pragma GCC unroll 4
      for (std::size_t k = 0; k < 4; ++k) store(to + (column + k) * to_stride, columns[k]);
    }
  }
};

}  // namespace

void train_run_avx512(const TrajectorySettings& settings, const TrajectoryRun& run, float* memory) {
  lanes::train_run<Avx512Lanes>(settings, run, memory);
}

const LanesKernels kAvx512Lanes{lanes::embed<Avx512Lanes>, lanes::inner_products<Avx512Lanes>,
                                lanes::train_run<Avx512Lanes>};

}  // namespace mmcl
#endif

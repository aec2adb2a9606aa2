// Sixteen lanes as two AVX2 registers for inner products, training runs and embeddings.
#if defined(__x86_64__)
#include <immintrin.h>

#include "embed_simd.h"
#include "inner_products_simd.h"
#include "lanes.h"
#include "trajectory_simd.h"

namespace mmcl {
namespace {

struct Avx2Lanes {
  struct Float {
    __m256 low, high;
  };
  using Mask = Float;
  // Units of a tile or strip whose sums stay in the 16 registers, two for each unit.
  static constexpr int score_rows = 3, score_units = 2, pull_units = 4, move_units = 4;
  static constexpr std::size_t dot_rows = 2, dot_columns = 2;

  static MMCL_INLINE Float broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static MMCL_INLINE Float load(const float* from) {
    return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
  }
  static MMCL_INLINE void store(float* to, Float a) {
    _mm256_storeu_ps(to, a.low);
    _mm256_storeu_ps(to + 8, a.high);
  }
  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes) {
    const Mask m = first(lanes);
    return {_mm256_maskload_ps(from, _mm256_castps_si256(m.low)),
            _mm256_maskload_ps(from + 8, _mm256_castps_si256(m.high))};
  }
  static MMCL_INLINE void store_first(float* to, Float a, std::size_t lanes) {
    const Mask m = first(lanes);
    _mm256_maskstore_ps(to, _mm256_castps_si256(m.low), a.low);
    _mm256_maskstore_ps(to + 8, _mm256_castps_si256(m.high), a.high);
  }
  static MMCL_INLINE Float add(Float a, Float b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  static MMCL_INLINE Float subtract(Float a, Float b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  static MMCL_INLINE Float mul(Float a, Float b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static MMCL_INLINE Float div(Float a, Float b) {
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
  }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static MMCL_INLINE Float larger(Float a, Float b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }

  static MMCL_INLINE Mask less(Float a, Float b) {
    return {_mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ)};
  }
  static MMCL_INLINE Mask both(Mask a, Mask b) {
    return {_mm256_and_ps(a.low, b.low), _mm256_and_ps(a.high, b.high)};
  }
  static MMCL_INLINE Mask first(std::size_t lanes) {
    const __m256i limit = _mm256_set1_epi32(lanes > 16 ? 16 : static_cast<int>(lanes));
    const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, low)),
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, high))};
  }
  static MMCL_INLINE std::uint32_t bits(Mask m) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(m.low)) |
           static_cast<std::uint32_t>(_mm256_movemask_ps(m.high)) << 8;
  }
  static MMCL_INLINE std::size_t count(Mask m) {
    return static_cast<std::size_t>(__builtin_popcount(bits(m)));
  }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) {
    return {_mm256_blendv_ps(b.low, a.low, m.low), _mm256_blendv_ps(b.high, a.high, m.high)};
  }
  static MMCL_INLINE Float keep(Mask m, Float a) { return both(m, a); }
  static MMCL_INLINE Float drop(Mask m, Float a) {
    return {_mm256_andnot_ps(m.low, a.low), _mm256_andnot_ps(m.high, a.high)};
  }
  static MMCL_INLINE std::size_t append(Mask m, std::int32_t start, std::int32_t* to) {
    std::size_t found = 0;
    for (std::uint32_t left = bits(m); left != 0; left &= left - 1) {
      to[found++] = start + __builtin_ctz(left);
    }
    return found;
  }

  static MMCL_INLINE Float two_to_the(Float shifted) {
    return {two_to_the(shifted.low), two_to_the(shifted.high)};
  }
  static MMCL_INLINE void split(Float u, Float& exponent, Float& mantissa) {
    split(u.low, exponent.low, mantissa.low);
    split(u.high, exponent.high, mantissa.high);
  }

  // An 8 x 8 block at a time: halves of two rows side by side, then 4 x 4 transposes within them.
  static MMCL_INLINE void transpose(const float* from, std::size_t stride, float* to,
                                    std::size_t to_stride) {
    for (std::size_t first = 0; first < 16; first += 8) {
      for (std::size_t column = 0; column < 16; column += 4) {
        __m256 row[4];
#pragma GCC unroll 4
        for (std::size_t k = 0; k < 4; ++k) {
          const float* const at = from + (first + k) * stride + column;
          row[k] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)),
                                        _mm_loadu_ps(at + 4 * stride), 1);
        }
        const __m256 a = _mm256_unpacklo_ps(row[0], row[1]), b = _mm256_unpackhi_ps(row[0], row[1]);
        const __m256 c = _mm256_unpacklo_ps(row[2], row[3]), d = _mm256_unpackhi_ps(row[2], row[3]);
        const __m256 columns[4] = {_mm256_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm256_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2)),
                                   _mm256_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm256_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2))};
#pragma GCC unroll 4
        for (std::size_t k = 0; k < 4; ++k) {
          _mm256_storeu_ps(to + (column + k) * to_stride + first, columns[k]);
        }
      }
    }
  }

 private:
  static MMCL_INLINE __m256 two_to_the(__m256 shifted) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(127 << 23)));
  }
  static MMCL_INLINE void split(__m256 u, __m256& exponent, __m256& mantissa) {
    const __m256i b = _mm256_sub_epi32(_mm256_castps_si256(u), _mm256_set1_epi32(kLogBits));
    exponent = _mm256_cvtepi32_ps(_mm256_srai_epi32(b, 23));
    const __m256i low = _mm256_and_si256(b, _mm256_set1_epi32(kMantissa));
    mantissa = _mm256_castsi256_ps(_mm256_add_epi32(low, _mm256_set1_epi32(kLogBits)));
  }
};

}  // namespace

void train_run_avx2(const TrajectorySettings& settings, const TrajectoryRun& run, float* memory) {
  lanes::train_run<Avx2Lanes>(settings, run, memory);
}

const LanesKernels kAvx2Lanes{lanes::embed<Avx2Lanes>, lanes::inner_products<Avx2Lanes>,
                              lanes::train_run<Avx2Lanes>};

}  // namespace mmcl
#endif

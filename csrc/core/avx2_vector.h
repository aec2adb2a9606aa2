// Units (units.h) as two AVX2 registers.
#pragma once

#include "avx2_registers.h"
#include "pair.h"

namespace mmcl {
namespace {

// Units of a tile or strip: their sums stay in the 16 registers, two for each unit.
struct Avx2Floats : Pair<Avx2Float8> {
  static constexpr int score_rows = 3, score_units = 2, change_units = 4, update_units = 4;
  static constexpr std::size_t dot_rows = 2, dot_columns = 2;

  // An 8 x 8 block at a time: halves of two rows side by side, then 4 x 4 transposes within them.
  static MMCL_INLINE void transpose(const float* from, std::size_t stride, float* to,
                                    std::size_t to_stride) {
    for (std::size_t first = 0; first < 16; first += 8) {
      for (std::size_t column = 0; column < 16; column += 4) {
        __m256 row[4];
        MMCL_UNROLL(4)
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
        MMCL_UNROLL(4)
        for (std::size_t k = 0; k < 4; ++k) {
          _mm256_storeu_ps(to + (column + k) * to_stride + first, columns[k]);
        }
      }
    }
  }
};

struct Avx2Doubles : Pair<Avx2Double4> {
  static constexpr int combine_units = 6, gram_rows = 4, gram_units = 1, factor_units = 1;
};

}  // namespace
}  // namespace mmcl

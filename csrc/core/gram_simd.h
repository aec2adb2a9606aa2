// X X^T of a chunk of rows that fits the cache, over a wrapper `V`: blocks of V::gram_rows x
// V::gram_columns dot products, whose partial sums stay in registers.
#pragma once

#include "philox_simd.h"

namespace mmcl {
namespace simd {

// Adds the lower triangle, in double. `dims` is a multiple of sixteen. Blocks that reach over an
// edge repeat the last row there and drop the result.
template <class V>
static void gram(const float* x, std::size_t rows, std::size_t stride, std::size_t dims,
                 double* out) {
  constexpr int kRows = V::gram_rows, kColumns = V::gram_columns;
  const auto row = [=](std::size_t i) { return x + (i < rows ? i : rows - 1) * stride; };
  for (std::size_t i = 0; i < rows; i += kRows) {
    for (std::size_t j = 0; j < rows && j < i + kRows; j += kColumns) {
      const float *left[kRows], *right[kColumns];
      for (int a = 0; a < kRows; ++a) left[a] = row(i + a);
      for (int b = 0; b < kColumns; ++b) right[b] = row(j + b);
      typename V::Float sum[kRows][kColumns];
      MMCL_UNROLL(8)
      for (int a = 0; a < kRows; ++a) {
        MMCL_UNROLL(8)
        for (int b = 0; b < kColumns; ++b) sum[a][b] = V::broadcast(0.0f);
      }
      for (std::size_t k = 0; k < dims; k += V::width) {
        typename V::Float l[kRows];
        MMCL_UNROLL(8)
        for (int a = 0; a < kRows; ++a) l[a] = V::load(left[a] + k);
        MMCL_UNROLL(8)
        for (int b = 0; b < kColumns; ++b) {
          const auto r = V::load(right[b] + k);
          MMCL_UNROLL(8)
          for (int a = 0; a < kRows; ++a) sum[a][b] = V::fma(l[a], r, sum[a][b]);
        }
      }
      MMCL_UNROLL(8)
      for (int a = 0; a < kRows; ++a) {
        MMCL_UNROLL(8)
        for (int b = 0; b < kColumns; ++b) {
          const std::size_t p = i + a, q = j + b;
          if (p < rows && q <= p) out[p * rows + q] += double{V::sum(sum[a][b])};
        }
      }
    }
  }
}

}  // namespace simd
}  // namespace mmcl

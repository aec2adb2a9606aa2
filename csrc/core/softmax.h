// Exponentials, maxima and sums over a block of float32 scores in one or two passes.
//
// Scores are in units of log 2. The term of a score s under a top t is 2^(s - t), and 0 below
// 2^-100: never subnormal. A top is raised to the scores' maximum and to kLowestTop = -2^126, so
// that terms are at most 1 and a masked score (-2^127) has the term 0 even where all are masked.
//
// Not-a-number among the scores makes the total of its row or column one, and so does +inf
// (inf - inf); the tops pass over it. Not-a-number as a top stays and makes the total one.
//
// Results do not depend on instruction set, threads, stride or place: sums have a fixed shape. A
// row adds 32 interleaved float32 sums over 1024 columns at a time, a column 64 rows at a time, and
// these parts in double. With u = 2^-24 a term is within 2 u of 2^x, x the float32 difference
// s - t, and a total within 39 u (row) or 66 u (column) of the exact sum of those, relatively.
#pragma once

#include <cstddef>

#include "target.h"

namespace mmcl {

// Rows are contiguous and `stride` elements apart.
template <class T>
struct Matrix {
  T* data;
  std::size_t rows, columns;
  std::ptrdiff_t stride;
  T* row(std::size_t i) const { return data + static_cast<std::ptrdiff_t>(i) * stride; }
};

// Largest score and sum of terms of each row or column.
struct TopTotal {
  float* top;    // raised
  float* total;  // written
};

struct TopScale {
  const float* top;
  const float* scale;
};

// `terms` may be `scores` itself; without data only the statistics are wanted. At most `threads`
// threads run, fewer on small blocks.
void softmax_rows(const Target& target, const Matrix<const float>& scores,
                  const Matrix<float>& terms, const TopTotal& rows, int threads);
void softmax_columns(const Target& target, const Matrix<const float>& scores,
                     const Matrix<float>& terms, const TopTotal& columns, int threads);
// The statistics of both, equal to those of the two above.
void softmax_both(const Target& target, const Matrix<const float>& scores, const TopTotal& rows,
                  const TopTotal& columns, int threads);

// In place: s <- 2^(s - top_i) scale_i + 2^(s - top_j) scale_j, or the first of the two alone if
// `columns` is null. A subnormal result becomes 0. Tops may be any: large powers
// are inf.
void softmax_weights(const Target& target, const Matrix<float>& scores, const TopScale& rows,
                     const TopScale* columns, int threads);

// In place, with x = s log 2: s <- 1 / (1 + e^-x), total_i = sum_j log(1 + e^x_ij). Where e^x is
// below 2^-100 both are 0. Within 5 u and 43 u of the exact values, relatively.
void softplus_rows(const Target& target, const Matrix<float>& scores, float* total, int threads);

}  // namespace mmcl

// Exponentials, maxima and sums over a block of float32 scores in one or two passes.
//
// Scores are in units of log 2. The term of a score s under a maximum t is 2^(s - t), and 0 below
// 2^-100: never subnormal. The given maximum is raised to the largest score and to kLowestMax =
// -2^126, so that terms are at most 1 and a masked score (-2^127) has the term 0 even where all are
// masked.
//
// A score that is not-a-number makes the sum of its row or column not-a-number, and so does +inf
// (inf - inf); maxima ignore not-a-number. A given maximum that is not-a-number stays and makes the
// sum not-a-number.
//
// Results do not depend on instruction set, threads, strides or alignment: sums have a fixed shape.
// A row adds 32 interleaved float32 sums over 1024 columns at a time, a column 64 rows at a time,
// and these parts in double. With u = 2^-24 a term is within 2 u of 2^x, x the float32 difference
// s - t, and a sum within 39 u (row) or 66 u (column) of the exact sum of those, relatively.
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

// Maximum score and sum of terms of each row or column.
struct MaxSum {
  float* max;  // raised
  float* sum;  // written
};

// Maximum of each row or column, and the factor of its terms.
struct MaxScale {
  const float* max;
  const float* scale;
};

// `terms` may be `scores` itself; without data no terms are written. At most `threads`
// threads run, fewer on small blocks.
void softmax_rows(const Target& target, const Matrix<const float>& scores,
                  const Matrix<float>& terms, const MaxSum& rows, int threads);
void softmax_columns(const Target& target, const Matrix<const float>& scores,
                     const Matrix<float>& terms, const MaxSum& columns, int threads);
// The statistics of both, equal to those of the two above.
void softmax_both(const Target& target, const Matrix<const float>& scores, const MaxSum& rows,
                  const MaxSum& columns, int threads);

// In place: s <- 2^(s - max_i) scale_i + 2^(s - max_j) scale_j, without the second term if
// `columns` is null. A subnormal result becomes 0. Any maxima are allowed: powers from 2^129 are
// inf.
void softmax_weights(const Target& target, const Matrix<float>& scores, const MaxScale& rows,
                     const MaxScale* columns, int threads);

// In place, with x = s log 2: s <- 1 / (1 + e^-x), sum_i = sum_j log(1 + e^x_ij). Where e^x is
// below 2^-100 both are 0. Within 5 u and 43 u of the exact values, relatively.
void softplus_rows(const Target& target, const Matrix<float>& scores, float* sum, int threads);

}  // namespace mmcl

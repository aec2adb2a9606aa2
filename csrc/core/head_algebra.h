// Products and the Cholesky factor of small float64 matrices, over a wrapper `D`. Rows begin at
// multiples of a unit and are padded with zeros; each result is one chain of fused multiply-adds.
#pragma once

#include <cmath>

#include "doubles_math.h"

namespace mmcl {
namespace doubles {

// out_v[j] = sum_i factors_v[i] rows[i][j] for kVectors lists of factors at once.
template <class D, int kVectors>
static void combine(const double* rows, std::size_t stride, std::size_t count,
                    const double* const (&factors)[kVectors], double* const (&out)[kVectors]) {
  constexpr int kMost = kVectors == 1 ? D::combine_units : D::combine_units / 2;
  Units<kMost>::cover(0, stride / kDoubles, [&](auto tag, std::size_t first) {
    constexpr int kUnits = decltype(tag)::value;
    typename D::Float sum[kVectors][kUnits];
    MMCL_UNROLL(2)
    for (int v = 0; v < kVectors; ++v) {
      MMCL_UNROLL(8)
      for (int u = 0; u < kUnits; ++u) sum[v][u] = D::broadcast(0.0);
    }
    const double* row = rows + first * kDoubles;
    for (std::size_t i = 0; i < count; ++i, row += stride) {
      MMCL_UNROLL(8)
      for (int u = 0; u < kUnits; ++u) {
        const auto value = D::load(row + u * kDoubles);
        MMCL_UNROLL(2)
        for (int v = 0; v < kVectors; ++v) {
          sum[v][u] = D::fma(D::broadcast(factors[v][i]), value, sum[v][u]);
        }
      }
    }
    MMCL_UNROLL(2)
    for (int v = 0; v < kVectors; ++v) {
      MMCL_UNROLL(8)
      for (int u = 0; u < kUnits; ++u) {
        D::store(out[v] + (first + u) * kDoubles, sum[v][u]);
      }
    }
  });
}

// On and right of the diagonal: out[a][b] = sum_i rows[i][a] rows[i][b], `size` rows of it. Whole
// units are written, so some elements left of the diagonal are too.
template <class D>
static void upper_gram(const double* rows, std::size_t stride, std::size_t count, std::size_t size,
                       double* out, std::size_t out_stride) {
  static_assert(kDoubles % D::gram_rows == 0, "a tile of rows lies within a unit");
  for (std::size_t a = 0; a < size; a += D::gram_rows) {
    Units<D::gram_units>::cover(a / kDoubles, stride / kDoubles, [&](auto tag, std::size_t first) {
      constexpr int kUnits = decltype(tag)::value;
      typename D::Float sum[D::gram_rows][kUnits];
      MMCL_UNROLL(8)
      for (int r = 0; r < D::gram_rows; ++r) {
        MMCL_UNROLL(8)
        for (int u = 0; u < kUnits; ++u) sum[r][u] = D::broadcast(0.0);
      }
      const double* row = rows;
      for (std::size_t i = 0; i < count; ++i, row += stride) {
        typename D::Float value[kUnits];
        MMCL_UNROLL(8)
        for (int u = 0; u < kUnits; ++u) value[u] = D::load(row + (first + u) * kDoubles);
        MMCL_UNROLL(8)
        for (int r = 0; r < D::gram_rows; ++r) {
          const auto factor = D::broadcast(row[a + r]);
          MMCL_UNROLL(8)
          for (int u = 0; u < kUnits; ++u) sum[r][u] = D::fma(factor, value[u], sum[r][u]);
        }
      }
      MMCL_UNROLL(8)
      for (int r = 0; r < D::gram_rows; ++r) {
        MMCL_UNROLL(8)
        for (int u = 0; u < kUnits; ++u) {
          D::store(out + (a + r) * out_stride + (first + u) * kDoubles, sum[r][u]);
        }
      }
    });
  }
}

// Rows k .. k + kRows of the factor, from the rows above.
template <class D, int kRows>
static MMCL_INLINE void factor_rows(double* a, std::size_t width, std::size_t k, double* inverse) {
  Units<D::factor_units>::cover(k / kDoubles, width / kDoubles, [&](auto tag, std::size_t first) {
    constexpr int kUnits = decltype(tag)::value;
    typename D::Float rest[kRows][kUnits];
    MMCL_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      MMCL_UNROLL(8)
      for (int u = 0; u < kUnits; ++u) {
        rest[r][u] = D::load(a + (k + r) * width + (first + u) * kDoubles);
      }
    }
    const double* row = a;
    for (std::size_t j = 0; j < k; ++j, row += width) {
      typename D::Float value[kUnits];
      MMCL_UNROLL(8)
      for (int u = 0; u < kUnits; ++u) value[u] = D::load(row + (first + u) * kDoubles);
      MMCL_UNROLL(4)
      for (int r = 0; r < kRows; ++r) {
        const auto factor = D::broadcast(-row[k + r]);
        MMCL_UNROLL(8)
        for (int u = 0; u < kUnits; ++u) rest[r][u] = D::fma(factor, value[u], rest[r][u]);
      }
    }
    MMCL_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      MMCL_UNROLL(8)
      for (int u = 0; u < kUnits; ++u) {
        D::store(a + (k + r) * width + (first + u) * kDoubles, rest[r][u]);
      }
    }
  });
  const std::size_t begin = k / kDoubles * kDoubles;
  for (std::size_t r = k; r < k + kRows; ++r) {
    double* const current = a + r * width;
    for (std::size_t j = k; j < r; ++j) {
      const double* const row = a + j * width;
      const auto factor = D::broadcast(-row[r]);
      for (std::size_t i = begin; i < width; i += kDoubles) {
        D::store(current + i, D::fma(factor, D::load(row + i), D::load(current + i)));
      }
    }
    inverse[r] = 1.0 / std::sqrt(current[r]);
    const auto scale = D::broadcast(inverse[r]);
    for (std::size_t i = begin; i < width; i += kDoubles) {
      D::store(current + i, D::mul(D::load(current + i), scale));
    }
  }
}

// A = U^T U, `size` rows: elements on and right of the diagonal are read and replaced by U; columns
// from `size` on are right sides b, replaced by U^-T b. `inverse` takes 1 / U[k][k]. A
// matrix that is not positive definite leaves not-a-numbers.
template <class D>
static void cholesky(double* a, std::size_t width, std::size_t size, double* inverse) {
  constexpr std::size_t kRows = 4;
  std::size_t k = 0;
  for (; k + kRows <= size; k += kRows) factor_rows<D, kRows>(a, width, k, inverse);
  for (; k < size; ++k) factor_rows<D, 1>(a, width, k, inverse);
}

// x with U x = the given column of `cholesky`'s result; x is padded with zeros.
template <class D>
static void solve(const double* u, std::size_t width, std::size_t size, const double* inverse,
                  std::size_t column, double* x) {
  for (std::size_t i = 0; i < in_units(size); i += kDoubles) D::store(x + i, D::broadcast(0.0));
  for (std::size_t k = size; k-- > 0;) {
    const double* const row = u + k * width;
    // Within the diagonal's unit, elements that are not right of it meet zeros of x.
    const std::size_t begin = k / kDoubles * kDoubles;
    const double rest = row[column] - dot<D>(row + begin, x + begin, in_units(size) - begin);
    x[k] = rest * inverse[k];
  }
}

}  // namespace doubles
}  // namespace mmcl

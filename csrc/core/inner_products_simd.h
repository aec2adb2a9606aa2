// Inner products of rows in blocks of 4 x 4, over a wrapper `L`.
#pragma once

#include "inner_products.h"
#include "lanes_math.h"
#include "trajectory_workspace.h"

namespace mmcl {
namespace lanes {

constexpr std::size_t kSide = 4;     // sixteen sums of sixteen lanes become one vector of results
constexpr std::size_t kChunk = 768;  // dims: twelve rows of it fit the first-level cache

// Sixteen partial sums of each of kRows x kColumns products, to rows of `lanes`.
template <class L, int kRows, int kColumns>
static MMCL_INLINE void dot_tile(const float* const* left, const float* const* right,
                                 std::size_t begin, std::size_t end, float* lanes) {
  typename L::Float sum[kRows][kColumns];
#pragma GCC unroll 4
  for (int a = 0; a < kRows; ++a) {
#pragma GCC unroll 4
    for (int b = 0; b < kColumns; ++b) sum[a][b] = L::broadcast(0.0f);
  }
  const auto step = [&](auto load) __attribute__((always_inline)) {
    typename L::Float y[kColumns];
#pragma GCC unroll 4
    for (int b = 0; b < kColumns; ++b) y[b] = load(right[b]);
#pragma GCC unroll 4
    for (int a = 0; a < kRows; ++a) {
      const auto x = load(left[a]);
#pragma GCC unroll 4
      for (int b = 0; b < kColumns; ++b) sum[a][b] = L::fma(x, y[b], sum[a][b]);
    }
  };
  std::size_t k = begin;
  for (; k + kUnit <= end; k += kUnit) {
    step([=](const float* row) __attribute__((always_inline)) { return L::load(row + k); });
  }
  if (k < end) {
    step([=](const float* row)
             __attribute__((always_inline)) { return L::load_first(row + k, end - k); });
  }
#pragma GCC unroll 4
  for (int a = 0; a < kRows; ++a) {
#pragma GCC unroll 4
    for (int b = 0; b < kColumns; ++b) L::store(lanes + (a * kSide + b) * kUnit, sum[a][b]);
  }
}

// The sums over lanes of sixteen rows, in the order of `sum` of lanes_math.h.
template <class L>
static MMCL_INLINE typename L::Float sums(const float* lanes) {
  alignas(64) float turned[kUnit * kUnit];
  L::transpose(lanes, kUnit, turned, kUnit);
  typename L::Float part[kUnit / 2];
#pragma GCC unroll 8
  for (std::size_t i = 0; i < 8; ++i) {
    part[i] = L::add(L::load(turned + i * kUnit), L::load(turned + (i + 8) * kUnit));
  }
#pragma GCC unroll 4
  for (std::size_t half = 4; half > 0; half /= 2) {
#pragma GCC unroll 4
    for (std::size_t i = 0; i < half; ++i) part[i] = L::add(part[i], part[i + half]);
  }
  return part[0];
}

// Adds dims begin .. end to a 4 x 4 block of results, or begins with them. Rows and columns that do
// not exist repeat the last one.
template <class L>
static void dot_block(const InnerProducts& work, std::size_t row, std::size_t column,
                      std::size_t begin, std::size_t end) {
  const float *left[kSide], *right[kSide];
  for (std::size_t a = 0; a < kSide; ++a) {
    left[a] = work.left[row + a < work.rows ? row + a : work.rows - 1];
    right[a] = work.right[column + a < work.columns ? column + a : work.columns - 1];
  }
  alignas(64) float lanes[kUnit * kUnit];
  for (std::size_t a = 0; a < kSide; a += L::dot_rows) {
    for (std::size_t b = 0; b < kSide; b += L::dot_columns) {
      dot_tile<L, L::dot_rows, L::dot_columns>(left + a, right + b, begin, end,
                                               lanes + (a * kSide + b) * kUnit);
    }
  }
  float found[kUnit];
  L::store(found, sums<L>(lanes));
  for (std::size_t a = 0; a < kSide && row + a < work.rows; ++a) {
    for (std::size_t b = 0; b < kSide && column + b < work.columns; ++b) {
      float& out = work.out[row + a][column + b];
      out = begin == 0 ? found[a * kSide + b] : out + found[a * kSide + b];
    }
  }
}

template <class L>
static void inner_products(const InnerProducts& work) {
  constexpr std::size_t kTall = 2 * kSide;  // rows that stay in the cache while columns pass
  // Whole blocks above the diagonal of what both lists share come from below it.
  const std::size_t shared = work.shared / kSide * kSide;
  for (std::size_t begin = 0; begin == 0 || begin < work.dims; begin += kChunk) {
    const std::size_t end = work.dims - begin < kChunk ? work.dims : begin + kChunk;
    for (std::size_t tall = 0; tall < work.rows; tall += kTall) {
      for (std::size_t column = 0; column < work.columns; column += kSide) {
        for (std::size_t row = tall; row < tall + kTall && row < work.rows; row += kSide) {
          if (column > row && column < shared) continue;
          dot_block<L>(work, row, column, begin, end);
        }
      }
    }
  }
  for (std::size_t i = 0; i < shared; ++i) {
    for (std::size_t j = 0; j < i / kSide * kSide; ++j) work.out[j][i] = work.out[i][j];
  }
}

}  // namespace lanes
}  // namespace mmcl

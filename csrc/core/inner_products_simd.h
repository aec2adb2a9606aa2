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
  MMCL_UNROLL(4)
  for (int a = 0; a < kRows; ++a) {
    MMCL_UNROLL(4)
    for (int b = 0; b < kColumns; ++b) sum[a][b] = L::broadcast(0.0f);
  }
  const auto step = [&](auto load) MMCL_INLINE_LAMBDA {
    typename L::Float y[kColumns];
    MMCL_UNROLL(4)
    for (int b = 0; b < kColumns; ++b) y[b] = load(right[b]);
    MMCL_UNROLL(4)
    for (int a = 0; a < kRows; ++a) {
      const auto x = load(left[a]);
      MMCL_UNROLL(4)
      for (int b = 0; b < kColumns; ++b) sum[a][b] = L::fma(x, y[b], sum[a][b]);
    }
  };
  std::size_t k = begin;
  for (; k + kUnit <= end; k += kUnit) {
    step([=](const float* row) MMCL_INLINE_LAMBDA { return L::load(row + k); });
  }
  if (k < end) {
    step([=](const float* row) MMCL_INLINE_LAMBDA { return L::load_first(row + k, end - k); });
  }
  MMCL_UNROLL(4)
  for (int a = 0; a < kRows; ++a) {
    MMCL_UNROLL(4)
    for (int b = 0; b < kColumns; ++b) L::store(lanes + (a * kSide + b) * kUnit, sum[a][b]);
  }
}

// The sums over lanes of sixteen rows, in the order of `sum` of lanes_math.h.
template <class L>
static MMCL_INLINE typename L::Float sums(const float* lanes) {
  alignas(64) float transposed[kUnit * kUnit];
  L::transpose(lanes, kUnit, transposed, kUnit);
  typename L::Float part[kUnit / 2];
  MMCL_UNROLL(8)
  for (std::size_t i = 0; i < 8; ++i) {
    part[i] = L::add(L::load(transposed + i * kUnit), L::load(transposed + (i + 8) * kUnit));
  }
  MMCL_UNROLL(4)
  for (std::size_t half = 4; half > 0; half /= 2) {
    MMCL_UNROLL(4)
    for (std::size_t i = 0; i < half; ++i) part[i] = L::add(part[i], part[i + half]);
  }
  return part[0];
}

// Adds dims begin .. end to a 4 x 4 block of results, or begins with them. Rows and columns past
// the end repeat the last one.
template <class L>
static void dot_block(const InnerProducts& job, std::size_t row, std::size_t column,
                      std::size_t begin, std::size_t end) {
  const float *left[kSide], *right[kSide];
  for (std::size_t a = 0; a < kSide; ++a) {
    left[a] = job.left[row + a < job.rows ? row + a : job.rows - 1];
    right[a] = job.right[column + a < job.columns ? column + a : job.columns - 1];
  }
  alignas(64) float lanes[kUnit * kUnit];
  for (std::size_t a = 0; a < kSide; a += L::dot_rows) {
    for (std::size_t b = 0; b < kSide; b += L::dot_columns) {
      dot_tile<L, L::dot_rows, L::dot_columns>(left + a, right + b, begin, end,
                                               lanes + (a * kSide + b) * kUnit);
    }
  }
  float products[kUnit];
  L::store(products, sums<L>(lanes));
  for (std::size_t a = 0; a < kSide && row + a < job.rows; ++a) {
    for (std::size_t b = 0; b < kSide && column + b < job.columns; ++b) {
      float& out = job.out[row + a][column + b];
      out = begin == 0 ? products[a * kSide + b] : out + products[a * kSide + b];
    }
  }
}

template <class L>
static void inner_products(const InnerProducts& job) {
  constexpr std::size_t kRowBlock = 2 * kSide;  // rows stay in the cache for all columns
  // Whole blocks above the diagonal of the shared rows are copied from below it.
  const std::size_t shared = job.shared / kSide * kSide;
  for (std::size_t begin = 0; begin == 0 || begin < job.dims; begin += kChunk) {
    const std::size_t end = job.dims - begin < kChunk ? job.dims : begin + kChunk;
    for (std::size_t block = 0; block < job.rows; block += kRowBlock) {
      for (std::size_t column = 0; column < job.columns; column += kSide) {
        for (std::size_t row = block; row < block + kRowBlock && row < job.rows; row += kSide) {
          if (column > row && column < shared) continue;
          dot_block<L>(job, row, column, begin, end);
        }
      }
    }
  }
  for (std::size_t i = 0; i < shared; ++i) {
    for (std::size_t j = 0; j < i / kSide * kSide; ++j) job.out[j][i] = job.out[i][j];
  }
}

}  // namespace lanes
}  // namespace mmcl

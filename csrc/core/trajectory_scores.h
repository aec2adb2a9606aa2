// Scores between samples of unlike labels, and their softmax, over a wrapper `L`.
#pragma once

#include "lanes_math.h"
#include "trajectory_workspace.h"

namespace mmcl {
namespace lanes {

// Where scores of one direction are and which samples they belong to.
struct ScoreBlock {
  float* scores;  // [keys, stride]: a column for each query
  std::size_t stride, keys, queries;
};

// kRows x kUnits sums over the neurons in registers: out[i][j] = scale sum_r x[r][i] y[r][j].
template <class L, int kRows, int kUnits>
static MMCL_INLINE void score_tile(const float* x, const float* y, std::size_t samples,
                                   std::size_t m, float scale, float* out, std::size_t stride) {
  typename L::Float sum[kRows][kUnits];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int k = 0; k < kUnits; ++k) sum[i][k] = L::broadcast(0.0f);
  }
  for (std::size_t r = 0; r < m; ++r, x += samples, y += samples) {
    typename L::Float column[kUnits];
#pragma GCC unroll 8
    for (int k = 0; k < kUnits; ++k) column[k] = L::load(y + k * kUnit);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const auto row = L::broadcast(x[i]);
#pragma GCC unroll 8
      for (int k = 0; k < kUnits; ++k) sum[i][k] = L::fma(row, column[k], sum[i][k]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int k = 0; k < kUnits; ++k) {
      L::store(out + i * stride + k * kUnit, L::mul(sum[i][k], L::broadcast(scale)));
    }
  }
}

template <class L, int kUnits>
static void score_strip(const float* x, const float* y, std::size_t samples, std::size_t m,
                        float scale, std::size_t rows, float* out, std::size_t stride) {
  // The last tile may reach over the rows: `out` has room, and what is there is never used.
  for (std::size_t i = 0; i < rows; i += L::score_rows) {
    score_tile<L, L::score_rows, kUnits>(x + i, y, samples, m, scale, out + i * stride, stride);
  }
}

// Scores of x's samples of label +1 (rows) and y's of label -1 (columns), and their transpose.
template <class L>
static void all_scores(const float* x, const float* y, const TrajectorySpace& space,
                       std::size_t positives, std::size_t m, float scale, const ScoreSpace& out) {
  y += positives;
  std::size_t j = 0;
  const std::size_t units = space.columns / kUnit;
  while (j < units) {
    const std::size_t left = units - j;
    float* const to = out.rows + j * kUnit;
    const float* const from = y + j * kUnit;
    if (L::score_units >= 4 && left >= 4) {
      score_strip<L, L::score_units >= 4 ? 4 : 1>(x, from, space.samples, m, scale, positives, to,
                                                  space.columns);
      j += 4;
    } else if (L::score_units >= 3 && left >= 3) {
      score_strip<L, L::score_units >= 3 ? 3 : 1>(x, from, space.samples, m, scale, positives, to,
                                                  space.columns);
      j += 3;
    } else if (left >= 2) {
      score_strip<L, 2>(x, from, space.samples, m, scale, positives, to, space.columns);
      j += 2;
    } else {
      score_strip<L, 1>(x, from, space.samples, m, scale, positives, to, space.columns);
      j += 1;
    }
  }
  for (std::size_t row = 0; row < space.rows; row += kUnit) {
    for (std::size_t column = 0; column < space.columns; column += kUnit) {
      L::transpose(out.rows + row * space.columns + column, space.columns,
                   out.columns + column * space.rows + row, space.rows);
    }
  }
}

// What a softmax leaves for the gradient of its queries, and adds to loss and missing.
struct SoftmaxOut {
  float *pull, *push;  // [queries]
};

// Replaces the scores of each query (a column) by e^(s - top). With p the softmax over the keys and
// the query's positive: pull = weight / sum, so that p = e^(s - top) pull / weight, and
// push = weight (1 - p_positive). Adds the queries' losses -log p_positive to `loss`.
template <class L>
static void softmax(const ScoreBlock& block, const float* matched, float weight,
                    const SoftmaxOut& out, typename L::Float& loss, typename L::Float& missing) {
  using Float = typename L::Float;
  constexpr float kSmallest = 0x1p-60f;  // below, the quotient could overflow
  for (std::size_t i = 0; i < block.queries; i += kUnit) {
    float* const column = block.scores + i;
    const Float own = L::load(matched + i);
    Float top = own;
    for (std::size_t j = 0; j < block.keys; ++j) {
      top = L::maximum(L::load(column + j * block.stride), top);
    }
    Float negatives = L::broadcast(0.0f);
    for (std::size_t j = 0; j < block.keys; ++j) {
      float* const at = column + j * block.stride;
      const Float e = exp<L>(L::subtract(L::load(at), top));
      L::store(at, e);
      negatives = L::add(negatives, e);
    }
    const Float positive = exp<L>(L::subtract(own, top));
    const Float total = L::add(negatives, positive);
    const Float inverse = L::divide(L::broadcast(1.0f), total);
    const Float push = L::mul(L::mul(negatives, inverse), L::broadcast(weight));
    // log(1 + negatives / positive) keeps the digits of a small loss; where the positive
    // underflows, the loss is the gap in scores.
    const auto gone = L::less(positive, L::broadcast(kSmallest));
    const Float near = log1p<L>(L::divide(negatives, positive));
    const Float far = L::add(L::subtract(top, own), log<L>(total));
    const auto valid = L::first(block.queries - i);
    loss = L::add(loss, L::keep(valid, L::select(gone, far, near)));
    missing = L::add(missing, L::keep(valid, push));
    L::store(out.pull + i, L::mul(inverse, L::broadcast(weight)));
    L::store(out.push + i, push);
  }
}

}  // namespace lanes
}  // namespace mmcl

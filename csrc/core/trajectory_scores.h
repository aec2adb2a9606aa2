// Scores between samples of unlike labels, and their softmax, over a wrapper `L`.
#pragma once

#include "lanes_math.h"
#include "trajectory_workspace.h"

namespace mmcl {
namespace lanes {

// Scores of one direction.
struct ScoreBlock {
  float* scores;  // [keys, stride]: a column for each query
  std::size_t stride, keys, queries;
};

// kRows x kUnits sums over the neurons in registers: out[i][j] = scale sum_r x[r][i] y[r][j].
template <class L, int kRows, int kUnits>
static MMCL_INLINE void score_tile(const float* x, const float* y, std::size_t samples,
                                   std::size_t m, float scale, float* out, std::size_t stride) {
  typename L::Float sum[kRows][kUnits];
  MMCL_UNROLL(8)
  for (int i = 0; i < kRows; ++i) {
    MMCL_UNROLL(8)
    for (int k = 0; k < kUnits; ++k) sum[i][k] = L::broadcast(0.0f);
  }
  for (std::size_t r = 0; r < m; ++r, x += samples, y += samples) {
    typename L::Float column[kUnits];
    MMCL_UNROLL(8)
    for (int k = 0; k < kUnits; ++k) column[k] = L::load(y + k * kUnit);
    MMCL_UNROLL(8)
    for (int i = 0; i < kRows; ++i) {
      const auto row = L::broadcast(x[i]);
      MMCL_UNROLL(8)
      for (int k = 0; k < kUnits; ++k) sum[i][k] = L::fma(row, column[k], sum[i][k]);
    }
  }
  MMCL_UNROLL(8)
  for (int i = 0; i < kRows; ++i) {
    MMCL_UNROLL(8)
    for (int k = 0; k < kUnits; ++k) {
      L::store(out + i * stride + k * kUnit, L::mul(sum[i][k], L::broadcast(scale)));
    }
  }
}

template <class L, int kUnits>
static void score_strip(const float* x, const float* y, std::size_t samples, std::size_t m,
                        float scale, std::size_t rows, float* out, std::size_t stride) {
  // The last tile may reach past the rows: `out` has room, and nothing reads it.
  for (std::size_t i = 0; i < rows; i += L::score_rows) {
    score_tile<L, L::score_rows, kUnits>(x + i, y, samples, m, scale, out + i * stride, stride);
  }
}

// Scores of x's samples of label +1 (rows) and y's of label -1 (columns), and their transpose.
template <class L>
static void all_scores(const float* x, const float* y, const TrajectoryWorkspace& workspace,
                       std::size_t positives, std::size_t m, float scale,
                       const ScoreWorkspace& out) {
  y += positives;
  std::size_t j = 0;
  const std::size_t units = workspace.columns / kUnit;
  while (j < units) {
    const std::size_t left = units - j;
    float* const to = out.rows + j * kUnit;
    const float* const from = y + j * kUnit;
    if (L::score_units >= 4 && left >= 4) {
      score_strip<L, L::score_units >= 4 ? 4 : 1>(x, from, workspace.samples, m, scale, positives,
                                                  to, workspace.columns);
      j += 4;
    } else if (L::score_units >= 3 && left >= 3) {
      score_strip<L, L::score_units >= 3 ? 3 : 1>(x, from, workspace.samples, m, scale, positives,
                                                  to, workspace.columns);
      j += 3;
    } else if (left >= 2) {
      score_strip<L, 2>(x, from, workspace.samples, m, scale, positives, to, workspace.columns);
      j += 2;
    } else {
      score_strip<L, 1>(x, from, workspace.samples, m, scale, positives, to, workspace.columns);
      j += 1;
    }
  }
  for (std::size_t row = 0; row < workspace.rows; row += kUnit) {
    for (std::size_t column = 0; column < workspace.columns; column += kUnit) {
      L::transpose(out.rows + row * workspace.columns + column, workspace.columns,
                   out.columns + column * workspace.rows + row, workspace.rows);
    }
  }
}

// Factors in the gradient of the queries.
struct GradientFactors {
  float *key_weight, *positive_weight;  // [queries]
};

// Replaces the scores of each query (a column) by e^(s - max). With p the softmax over the keys and
// the query's positive: key_weight = weight / sum, so that p = e^(s - max) key_weight / weight,
// and positive_weight = weight (1 - p_positive). Adds the queries' losses -log p_positive to
// `loss`, and positive_weight to its sum.
template <class L>
static void softmax(const ScoreBlock& block, const float* positive_score, float weight,
                    const GradientFactors& out, typename L::Float& loss,
                    typename L::Float& positive_weight_sum) {
  using Float = typename L::Float;
  constexpr float kSmallest = 0x1p-60f;  // below, the quotient could overflow
  for (std::size_t i = 0; i < block.queries; i += kUnit) {
    float* const column = block.scores + i;
    const Float score = L::load(positive_score + i);
    Float max = score;
    for (std::size_t j = 0; j < block.keys; ++j) {
      max = L::maximum(L::load(column + j * block.stride), max);
    }
    Float negative_sum = L::broadcast(0.0f);
    for (std::size_t j = 0; j < block.keys; ++j) {
      float* const at = column + j * block.stride;
      const Float e = exp<L>(L::subtract(L::load(at), max));
      L::store(at, e);
      negative_sum = L::add(negative_sum, e);
    }
    const Float positive_exp = exp<L>(L::subtract(score, max));
    const Float exp_sum = L::add(negative_sum, positive_exp);
    const Float inverse = L::divide(L::broadcast(1.0f), exp_sum);
    const Float positive_weight = L::mul(L::mul(negative_sum, inverse), L::broadcast(weight));
    // log(1 + negative_sum / positive_exp) keeps the digits of a small loss; where positive_exp
    // underflows, the loss is the gap in scores.
    const auto underflows = L::less(positive_exp, L::broadcast(kSmallest));
    const Float from_ratio = log1p<L>(L::divide(negative_sum, positive_exp));
    const Float from_gap = L::add(L::subtract(max, score), log<L>(exp_sum));
    const auto valid = L::first(block.queries - i);
    loss = L::add(loss, L::keep(valid, L::select(underflows, from_gap, from_ratio)));
    positive_weight_sum = L::add(positive_weight_sum, L::keep(valid, positive_weight));
    L::store(out.key_weight + i, L::mul(inverse, L::broadcast(weight)));
    L::store(out.positive_weight + i, positive_weight);
  }
}

}  // namespace lanes
}  // namespace mmcl

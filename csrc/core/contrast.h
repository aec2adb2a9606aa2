// A contrastive loss whose scores [N, M] are small enough to be stored: statistics and row losses
// from the products of features, and from those the derivatives by the products.
//
// The forms and their negatives are those of mmcl_fast/losses/contrast.py. Scores are in units of
// log 2, as in softmax.h, whose passes and error bounds these are; sums over a row or column and
// losses are double. Results do not depend on the instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "softmax.h"
#include "target.h"

namespace mmcl {

enum class Form { kSoftmax, kDecoupled, kSigmoid };

struct Contrast {
  Form form;
  // [N, M]: products <q_i, k_j> at first, scores after `contrast_losses`; a pair that is no
  // negative is kMasked.
  Matrix<float> scores;
  Matrix<float> hard;  // [N, K], of the hard negatives of each query; K may be 0
  // [N], or null: a query has this many hard negatives, the first ones, and the rest is padding.
  const std::int64_t* hard_counts;
  // Key of each query's positive [N], or null. `products` [N] of positives that are no keys, or
  // null. Neither: the positives of a query are all keys of its label.
  const std::int64_t* positive;
  const float* positive_products;
  // [N] and [M - extra], or null: keys of the query's label are no negatives, or, if `supervised`,
  // they are its positives.
  const std::int64_t* labels;
  const std::int64_t* key_labels;
  // [N, M - extra], or null: pairs that take no part, but for a positive.
  const bool* excluded;
  std::size_t extra;
  bool supervised;
  bool exclude_self;
  bool symmetric;  // both directions count; the positive of query i is key i
  bool same_rows;  // queries are keys, and the gradients of both are added
  double inverse_temperature, bias, smoothing;
  // [N, M], kSigmoid only: written by `contrast_losses`, each negative's chance 1 / (1 + e^-s).
  Matrix<float> chances;
};

// Per query and direction; `statistics` has kStatistics arrays [N] for rows, then for columns.
enum Statistic { kPositive, kMax, kSum, kCandidates, kStatistics };

// Weights dL/d<q, k>, in the same shapes as the scores; null where not requested.
struct ContrastWeights {
  Matrix<float> scores, hard;
  float* positive;     // [N], of positives that are no keys
  float* temperature;  // [N], dL/dT row by row
  float* bias;         // [N]
};

constexpr float kMasked = -0x1p+127f;

// Turns products into scores; writes statistics and row losses [N], the mean of both directions if
// symmetric.
void contrast_losses(const Target& target, const Contrast& contrast, float* statistics,
                     float* losses);

// Derivatives of sum_i upstream_i loss_i. Of a symmetric contrast, `rows` and `columns` say which
// directions count.
void contrast_weights(const Target& target, const Contrast& contrast, const float* statistics,
                      const float* upstream, bool rows, bool columns,
                      const ContrastWeights& weights);

}  // namespace mmcl

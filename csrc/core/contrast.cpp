#include "contrast.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "default_floats.h"
#include "softmax_constants.h"

namespace mmcl {
namespace {

constexpr double kLog2 = 0x1.62e42fefa39efp-1;

// The keys that are no positive although their label is the query's: those from here on.
std::size_t labelled(const Contrast& c) { return c.scores.columns - c.extra; }

bool same_label(const Contrast& c, std::size_t i, std::size_t j) {
  return c.labels[i] == c.key_labels[j];
}

bool is_positive(const Contrast& c, std::size_t i, std::size_t j) {
  return same_label(c, i, j) && !(c.exclude_self && i == j);
}

// One rounding of a score serves both its rows.
void mirror(const Matrix<float>& scores) {
  constexpr std::size_t kTile = 16;  // rows of a tile stay in the cache
  for (std::size_t tile = 0; tile < scores.rows; tile += kTile) {
    const std::size_t end = std::min(tile + kTile, scores.rows);
    for (std::size_t j = tile + 1; j < scores.rows; ++j) {
      for (std::size_t i = tile; i < std::min(end, j); ++i) scores.row(j)[i] = scores.row(i)[j];
    }
  }
}

void scale(const Matrix<float>& products, float factor, float offset) {
  for (std::size_t i = 0; i < products.rows; ++i) {
    float* const row = products.row(i);
    for (std::size_t j = 0; j < products.columns; ++j) row[j] = row[j] * factor + offset;
  }
}

// Masks the padding after each query's hard negatives.
void mask_padding(const Contrast& c) {
  if (c.hard_counts == nullptr) return;
  for (std::size_t i = 0; i < c.hard.rows; ++i) {
    float* const row = c.hard.row(i);
    for (std::size_t j = 0; j < c.hard.columns; ++j) {
      if (static_cast<std::int64_t>(j) >= c.hard_counts[i]) row[j] = kMasked;
    }
  }
}

// Mean score of a supervised query's positives, and their number in `count`.
float mean_positive(const Contrast& c, std::size_t i, float* count) {
  double sum = 0.0;
  std::size_t number = 0;
  const float* const row = c.scores.row(i);
  for (std::size_t j = 0; j < labelled(c); ++j) {
    if (!is_positive(c, i, j)) continue;
    sum += double{row[j]};
    ++number;
  }
  *count = static_cast<float>(number);
  return number == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(number));
}

// Writes the positives' scores, and masks pairs that are no negatives.
void take_positives(const Contrast& c, float factor, float offset, float* positive, float* count) {
  for (std::size_t i = 0; i < c.scores.rows; ++i) {
    float* const row = c.scores.row(i);
    if (c.supervised) {
      positive[i] = mean_positive(c, i, count + i);
    } else if (c.positive_products != nullptr) {
      positive[i] = c.positive_products[i] * factor + offset;
    } else {
      float& at = row[c.positive[i]];
      positive[i] = at;
      at = kMasked;
    }
    if (c.labels != nullptr && !c.supervised) {
      for (std::size_t j = 0; j < labelled(c); ++j) {
        if (same_label(c, i, j)) row[j] = kMasked;
      }
    }
    if (c.excluded != nullptr) {
      const bool* const out = c.excluded + i * labelled(c);
      for (std::size_t j = 0; j < labelled(c); ++j) row[j] = out[j] ? kMasked : row[j];
    }
    if (c.exclude_self && i < labelled(c)) row[i] = kMasked;
  }
}

// Sum and number of the scores of a smoothed direction's negatives, row by row or column by column.
struct Candidates {
  std::vector<double> sum, number;
  explicit Candidates(std::size_t n) : sum(n), number(n) {}
  void add(std::size_t i, float score) {
    if (score == kMasked) return;
    sum[i] += double{score};
    number[i] += 1.0;
  }
};

double loss_of(const Contrast& c, double positive, double max, double sum) {
  if (c.form == Form::kSigmoid) {
    const double x = positive * kLog2;
    return sum + std::log1p(std::exp(-std::abs(x))) + std::max(-x, 0.0);
  }
  const double gap = (positive - max) * kLog2;
  if (c.form == Form::kSoftmax) return std::log1p(sum + std::expm1(gap)) - gap;
  return sum != 0.0 ? std::log(sum) - gap : 0.0;  // without negatives the loss is 0
}

// The factor of 2^(score - max) in dL/ds of a negative.
double scale_of(const Contrast& c, double positive, double max, double sum) {
  if (c.form == Form::kSigmoid) return 1.0;
  if (c.form == Form::kSoftmax) return 1.0 / (sum + std::exp2(positive - max));
  return sum != 0.0 ? 1.0 / sum : 0.0;
}

// -dL/ds of the positive. Not-a-number among the negatives reaches it.
double pull_of(const Contrast& c, double positive, double max, double sum) {
  if (c.form == Form::kSigmoid) return 1.0 / (1.0 + std::exp(positive * kLog2));
  return sum * scale_of(c, positive, max, sum);
}

void copy(const Matrix<float>& from, const Matrix<float>& to) {
  for (std::size_t i = 0; i < from.rows; ++i) std::copy_n(from.row(i), from.columns, to.row(i));
}

Matrix<const float> constant(const Matrix<float>& m) {
  return {m.data, m.rows, m.columns, m.stride};
}

void add_hard(const Target& target, const Contrast& c, float* max, float* sum) {
  const std::size_t n = c.scores.rows;
  std::vector<float> both_max(max, max + n), hard_sum(n);
  softmax_rows(target, constant(c.hard), {nullptr, 0, 0, 0}, {both_max.data(), hard_sum.data()}, 1);
  for (std::size_t i = 0; i < n; ++i) {
    const double before = std::exp2(double{max[i]} - double{both_max[i]});
    sum[i] = static_cast<float>(double{sum[i]} * before + double{hard_sum[i]});
    max[i] = both_max[i];
  }
}

// Directions of a contrast, each with its statistics.
struct Direction {
  const float* at;
  std::size_t n;
  double positive(std::size_t i) const { return double{at[kPositive * n + i]}; }
  double max(std::size_t i) const { return double{at[kMax * n + i]}; }
  double sum(std::size_t i) const { return double{at[kSum * n + i]}; }
  double candidates(std::size_t i) const { return double{at[kCandidates * n + i]}; }
};

}  // namespace

void contrast_losses(const Target& target, const Contrast& c, float* statistics, float* losses) {
  const DefaultFloats environment;
  const std::size_t n = c.scores.rows, m = c.scores.columns, sides = c.symmetric ? 2 : 1;
  const auto factor = static_cast<float>(c.inverse_temperature / kLog2);
  const auto offset = static_cast<float>(c.bias / kLog2);
  const auto of = [&](std::size_t side, Statistic k) {
    return statistics + (side * kStatistics + k) * n;
  };
  if (c.same_rows) mirror(c.scores);
  scale(c.scores, factor, offset);
  scale(c.hard, factor, offset);
  mask_padding(c);
  take_positives(c, factor, offset, of(0, kPositive), of(0, kCandidates));
  if (sides == 2) std::copy_n(of(0, kPositive), n, of(1, kPositive));
  for (std::size_t side = 0; side < sides; ++side) {
    // The softmax form counts the positive: its largest term is then 1.
    if (c.form == Form::kSoftmax)
      std::copy_n(of(side, kPositive), n, of(side, kMax));
    else
      std::fill_n(of(side, kMax), n, kLowestMax);
  }
  const MaxSum rows{of(0, kMax), of(0, kSum)};
  if (c.form == Form::kSigmoid) {
    copy(c.scores, c.chances);
    softplus_rows(target, c.chances, rows.sum, 1);
  } else if (c.symmetric) {
    softmax_both(target, constant(c.scores), rows, {of(1, kMax), of(1, kSum)}, 1);
  } else {
    softmax_rows(target, constant(c.scores), {nullptr, 0, 0, 0}, rows, 1);
    if (c.hard.columns > 0) add_hard(target, c, rows.max, rows.sum);
  }
  std::fill_n(losses, n, 0.0f);
  std::vector<Candidates> smoothed;
  if (c.smoothing != 0.0) {
    smoothed.assign(sides, Candidates(n));
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < m; ++j) {
        smoothed[0].add(i, c.scores.row(i)[j]);
        if (sides == 2) smoothed[1].add(j, c.scores.row(i)[j]);
      }
      for (std::size_t j = 0; j < c.hard.columns; ++j) smoothed[0].add(i, c.hard.row(i)[j]);
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    double loss = 0.0;
    for (std::size_t side = 0; side < sides; ++side) {
      const Direction d{of(side, kPositive), n};
      if (c.supervised && d.candidates(i) == 0.0) continue;
      loss += loss_of(c, d.positive(i), d.max(i), d.sum(i));
      if (c.smoothing == 0.0) continue;
      const Candidates& others = smoothed[side];
      const double number = others.number[i] + 1.0;
      const double mean = (others.sum[i] + d.positive(i)) / number;
      loss += c.smoothing * (d.positive(i) - mean) * kLog2;
      of(side, kCandidates)[i] = static_cast<float>(number);
    }
    losses[i] = static_cast<float>(loss / static_cast<double>(sides));
  }
}

namespace {

// What a direction's queries add to the weights, upstream included.
struct Shares {
  std::vector<float> max, scale;        // of negatives
  std::vector<double> positive, other;  // of the positive; of smoothed or supervised candidates
  // A direction that does not count has weights of 0 below its largest scores.
  Shares(const Contrast& c, const Direction& d, const float* upstream, double factor, bool counts)
      : max(d.n), scale(d.n), positive(d.n), other(d.n) {
    for (std::size_t i = 0; i < d.n; ++i) {
      max[i] = static_cast<float>(d.max(i));
      if (!counts) continue;
      const double u = double{upstream[i]} * factor;
      if (c.supervised && d.candidates(i) == 0.0) continue;
      scale[i] = static_cast<float>(u * scale_of(c, d.positive(i), d.max(i), d.sum(i)));
      positive[i] = -u * pull_of(c, d.positive(i), d.max(i), d.sum(i));
      if (c.supervised) other[i] = positive[i] / d.candidates(i);
      if (c.smoothing == 0.0) continue;
      other[i] = -u * c.smoothing / d.candidates(i);
      positive[i] += u * c.smoothing + other[i];
    }
  }
};

void negative_weights(const Target& target, const Contrast& c, const Shares& rows,
                      const Shares* columns, const Matrix<float>& out) {
  if (c.form == Form::kSigmoid) {
    for (std::size_t i = 0; i < out.rows; ++i) {
      const float* const chances = c.chances.row(i);
      float* const to = out.row(i);
      for (std::size_t j = 0; j < out.columns; ++j) to[j] = chances[j] * rows.scale[i];
    }
    return;
  }
  copy(c.scores, out);
  const MaxScale of_rows{rows.max.data(), rows.scale.data()};
  if (columns == nullptr) {
    softmax_weights(target, out, of_rows, nullptr, 1);
    return;
  }
  const MaxScale of_columns{columns->max.data(), columns->scale.data()};
  softmax_weights(target, out, of_rows, &of_columns, 1);
}

// Constant parts of the weights of smoothed and of supervised candidates.
void add_candidates(const Contrast& c, const Shares& rows, const Shares* columns,
                    const Matrix<float>& out) {
  for (std::size_t i = 0; i < out.rows; ++i) {
    for (std::size_t j = 0; j < out.columns; ++j) {
      const bool counts =
          c.supervised ? j < labelled(c) && is_positive(c, i, j) : c.scores.row(i)[j] != kMasked;
      if (!counts) continue;
      const double share = rows.other[i] + (columns != nullptr ? columns->other[j] : 0.0);
      out.row(i)[j] = static_cast<float>(double{out.row(i)[j]} + share);
    }
  }
}

}  // namespace

void contrast_weights(const Target& target, const Contrast& c, const float* statistics,
                      const float* upstream, bool rows, bool columns,
                      const ContrastWeights& weights) {
  const DefaultFloats environment;
  const std::size_t n = c.scores.rows;
  const double factor = c.inverse_temperature / (c.symmetric ? 2.0 : 1.0);
  std::vector<Shares> shares;
  shares.reserve(2);
  shares.emplace_back(c, Direction{statistics, n}, upstream, factor, rows);
  if (c.symmetric && columns) {
    shares.emplace_back(c, Direction{statistics + kStatistics * n, n}, upstream, factor, true);
  }
  const Shares& of_rows = shares.front();
  const Shares* const of_columns = c.same_rows || shares.size() > 1 ? &shares.back() : nullptr;
  const auto positive_weight = [&](std::size_t i) {
    return shares.front().positive[i] + (shares.size() > 1 ? shares.back().positive[i] : 0.0);
  };
  const Matrix<float>& out = weights.scores;
  negative_weights(target, c, of_rows, of_columns, out);
  if (c.supervised || c.smoothing != 0.0) add_candidates(c, of_rows, of_columns, out);
  if (c.hard.columns > 0) {
    Contrast hard = c;
    hard.scores = c.hard;
    negative_weights(target, hard, of_rows, nullptr, weights.hard);
    if (c.smoothing != 0.0) {
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < c.hard.columns; ++j) {
          if (c.hard.row(i)[j] == kMasked) continue;
          weights.hard.row(i)[j] += static_cast<float>(of_rows.other[i]);
        }
      }
    }
  }
  // Sums over a row of weight times score, without the bias.
  const auto score_sum = [&](const Matrix<float>& w, const Matrix<float>& scores, std::size_t i) {
    double sum = 0.0;
    for (std::size_t j = 0; j < scores.columns; j += kSegment) {
      const std::size_t size = std::min(kSegment, scores.columns - j);
      sum += double{target.softmax.dot(w.row(i) + j, scores.row(i) + j, size)} * kLog2;
      if (c.bias != 0.0) sum -= c.bias * double{target.softmax.sum(w.row(i) + j, size)};
    }
    return sum;
  };
  // With the same rows a pair has the terms of both its rows, and is there twice.
  const double share = c.same_rows ? 0.5 : 1.0;
  for (std::size_t i = 0; i < n; ++i) {
    double positive = 0.0;
    if (!c.supervised) positive = positive_weight(i);
    if (weights.temperature != nullptr) {
      double sum = rows ? score_sum(out, c.scores, i) * share : 0.0;
      if (c.hard.columns > 0) sum += score_sum(weights.hard, c.hard, i);
      sum += positive * (double{statistics[kPositive * n + i]} * kLog2 - c.bias);
      weights.temperature[i] = static_cast<float>(-sum);
    }
    if (weights.bias != nullptr) {
      double sum = positive;
      for (std::size_t j = 0; j < out.columns; j += kSegment) {
        sum += double{target.softmax.sum(out.row(i) + j, std::min(kSegment, out.columns - j))};
      }
      weights.bias[i] = static_cast<float>(sum / c.inverse_temperature);
    }
  }
  if (weights.temperature != nullptr && columns && !rows) {
    // The loss of a direction's query i counts for entry i, and here queries are columns.
    std::vector<double> sums(n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j)
        sums[j] += double{out.row(i)[j]} * double{c.scores.row(i)[j]} * kLog2;
    }
    for (std::size_t j = 0; j < n; ++j)
      weights.temperature[j] = static_cast<float>(double{weights.temperature[j]} - sums[j]);
  }
  if (c.supervised) return;
  for (std::size_t i = 0; i < n; ++i) {
    const auto positive = static_cast<float>(positive_weight(i));
    if (c.positive == nullptr) {
      weights.positive[i] = positive;
      continue;
    }
    const auto at = static_cast<std::size_t>(c.positive[i]);
    out.row(i)[at] += positive;
    if (c.same_rows) out.row(at)[i] += positive;
  }
}

}  // namespace mmcl

// Scores of all pairs, their softmax, and the weights of pairs in the gradient, over a wrapper `L`.
#pragma once

#include "variant_signals.h"

namespace mmcl {
namespace lanes {

// Score of what is no negative: e^(s - max) is 0, and it stays finite.
constexpr float kNoNegative = -0x1.fffffep127f;
constexpr float kSmallestNorm = 1e-12f;  // as in docs/mathematics.md

namespace {

// One direction of the loss.
struct VariantDirection {
  const VariantModalityWorkspace &query, &key;
  const float *query_label, *key_label;  // [n]
  const std::int32_t *query_code, *key_code, *positive_code;
  const float* positive;               // features of the queries' positives, [m, samples]
  const float* positive_inverse_norm;  // of cosine similarity, [samples]
};

}  // namespace

// Scores of the positives.
template <class L>
static void score_positives(const VariantSettings& s, const VariantWorkspace& w,
                            const VariantDirection& d, float scale, float inverse_tau) {
  for (std::size_t i = 0; i < s.n; ++i) {
    w.gathered[i] =
        d.query.code_scores[static_cast<std::size_t>(d.positive_code[i]) * w.code_stride +
                            static_cast<std::size_t>(d.query_code[i])];
  }
  Units<4>::cover(0, padded(s.n) / kUnit, [&](auto units, std::size_t first) {
    typename L::Float sums[decltype(units)::value];
    for (auto& t : sums) t = L::broadcast(0.0f);
    const float *x = d.query.features + first * kUnit, *y = d.positive + first * kUnit;
    for (std::size_t r = 0; r < s.m; ++r, x += w.samples, y += w.samples) {
      MMCL_UNROLL(4)
      for (int u = 0; u < decltype(units)::value; ++u) {
        sums[u] = L::fma(L::load(x + u * kUnit), L::load(y + u * kUnit), sums[u]);
      }
    }
    MMCL_UNROLL(4)
    for (int u = 0; u < decltype(units)::value; ++u) {
      const std::size_t i = (first + u) * kUnit;
      const auto valid = L::first(s.n - i);
      auto score = L::add(L::mul(sums[u], L::broadcast(scale)), L::load(w.gathered + i));
      if (s.cosine) {
        // In the order of the negatives' scores: equal features have equal scores.
        score = L::mul(score, L::load(d.query.inverse_norm + i));
        score =
            L::mul(score, L::mul(L::load(d.positive_inverse_norm + i), L::broadcast(inverse_tau)));
      }
      L::store(d.query.positive_score + i, L::keep(valid, score));
    }
  });
}

// Negatives of a unit of queries: which keys are none for all of them, and which for a lane. Holds
// values: what a loop reads through a pointer is read again after every store of a vector.
template <class L>
struct UnitNegatives {
  const float* key_label;
  std::size_t first;        // query of lane 0
  typename L::Float label;  // of the queries
  float first_label;
  bool all, same;  // negatives of every label; or all queries have the label of the first

  UnitNegatives(const VariantSettings& s, const VariantDirection& d, std::size_t i)
      : key_label(d.key_label),
        first(i),
        label(L::load_first(d.query_label + i, s.n - i)),
        first_label(d.query_label[i]),
        all(s.all_negatives),
        same(true) {
    for (std::size_t k = i; k < s.n && k < i + kUnit; ++k) {
      same = same && d.query_label[k] == first_label;
    }
  }
  MMCL_INLINE bool none(std::size_t j) const { return !all && same && key_label[j] == first_label; }
  MMCL_INLINE typename L::Float masked(std::size_t j, typename L::Float score) const {
    const auto none = L::broadcast(kNoNegative);
    if (!all && !same) {
      const auto key = L::broadcast(key_label[j]);
      const auto gap = L::maximum(L::subtract(key, label), L::subtract(label, key));
      score = L::select(L::less(L::broadcast(0.0f), gap), score, none);
    }
    if (j < first || j >= first + kUnit) return score;
    const std::size_t own = j - first;
    return L::select(L::first(own), score, L::select(L::first(own + 1), none, score));
  }
};

// Keys that hold all negatives of a unit of queries: fewer than all where these have one label, and
// the keys of that label come first or last.
static inline Range negative_keys(const VariantSettings& s, const VariantDirection& d,
                                  std::size_t unit) {
  const std::size_t i = unit * kUnit;
  const float label = d.query_label[i];
  bool same = !s.all_negatives;
  for (std::size_t k = i; k < s.n && k < i + kUnit; ++k) same = same && d.query_label[k] == label;
  Range keys{0, s.n};
  if (!same) return keys;
  while (keys.first < keys.last && d.key_label[keys.first] == label) ++keys.first;
  while (keys.last > keys.first && d.key_label[keys.last - 1] == label) --keys.last;
  return keys;
}

// Sums over queries, per lane.
template <class L>
struct DirectionSums {
  typename L::Float loss, gap;
};

// Completes the scores of a unit of queries, in place; returns the largest, and at least `max`.
template <class L>
static MMCL_INLINE typename L::Float complete_scores(const UnitNegatives<L>& negatives,
                                                     const VariantWorkspace& w,
                                                     const VariantDirection& d, std::size_t n,
                                                     bool cosine, float inverse_tau,
                                                     typename L::Float max) {
  float* at = d.query.scores + negatives.first;
  const float* const signals = d.query.signal_scores + negatives.first;
  const float* const key_norm = d.key.inverse_norm;
  const std::int32_t* const key_code = d.key_code;
  const std::size_t stride = w.samples;
  const auto norm = cosine ? L::load(d.query.inverse_norm + negatives.first) : max;
  for (std::size_t j = 0; j < n; ++j, at += stride) {
    if (negatives.none(j)) {
      L::store(at, L::broadcast(kNoNegative));
      continue;
    }
    const auto code = static_cast<std::size_t>(key_code[j]);
    auto x = L::add(L::load(at), L::load(signals + code * stride));
    if (cosine) x = L::mul(L::mul(x, norm), L::broadcast(key_norm[j] * inverse_tau));
    x = negatives.masked(j, x);
    L::store(at, x);
    max = L::maximum(x, max);
  }
  return max;
}

// Writes e^(s - max) of a unit of queries to exps; `sum` receives their sum, and `gap` with its
// flag that of e^(s - max) (s - score).
template <class L>
static MMCL_INLINE void exponentiate(const UnitNegatives<L>& negatives, const VariantWorkspace& w,
                                     const VariantDirection& d, std::size_t n, bool with_gap,
                                     typename L::Float max, typename L::Float score,
                                     typename L::Float& sum, typename L::Float& gap) {
  const float* from = d.query.scores + negatives.first;
  float* to = d.query.exps + negatives.first;
  const std::size_t stride = w.samples;
  auto of_exps = L::broadcast(0.0f), of_gaps = of_exps;
  for (std::size_t j = 0; j < n; ++j, from += stride, to += stride) {
    if (negatives.none(j)) {
      L::store(to, L::broadcast(0.0f));
      continue;
    }
    const auto x = L::load(from);
    const auto e = exp<L>(L::subtract(x, max));
    L::store(to, e);
    of_exps = L::add(of_exps, e);
    if (with_gap) of_gaps = L::fma(e, L::subtract(x, score), of_gaps);
  }
  sum = of_exps;
  gap = of_gaps;
}

// Completes the scores of each query (a column), writes e^(s - max) to exps, fills inverse, share
// and gap, and adds the queries' losses -log p_positive and gaps to `sums`.
template <class L>
static void softmax(const VariantSettings& s, const VariantWorkspace& w, const VariantDirection& d,
                    float inverse_tau, DirectionSums<L>& sums) {
  using Float = typename L::Float;
  constexpr float kSmallest = 0x1p-60f;  // below, the quotient could overflow
  for (std::size_t i = 0; i < s.n; i += kUnit) {
    const UnitNegatives<L> negatives(s, d, i);
    const auto valid = L::first(s.n - i);
    const Float score = L::load(d.query.positive_score + i);
    const Float max = complete_scores<L>(negatives, w, d, s.n, s.cosine, inverse_tau, score);
    Float negative_sum, gap;
    exponentiate<L>(negatives, w, d, s.n, s.cosine || s.learned_tau, max, score, negative_sum, gap);
    const Float positive_exp = exp<L>(L::subtract(score, max));
    const Float exp_sum = L::add(negative_sum, positive_exp);
    const Float inverse = L::keep(valid, L::divide(L::broadcast(1.0f), exp_sum));
    gap = L::keep(valid, L::mul(gap, inverse));
    // log(1 + negative_sum / positive_exp) keeps the digits of a small loss; where positive_exp
    // underflows, the loss is the gap in scores.
    const auto underflows = L::less(positive_exp, L::broadcast(kSmallest));
    const Float from_ratio = log1p<L>(L::divide(negative_sum, positive_exp));
    const Float from_gap = L::add(L::subtract(max, score), log<L>(exp_sum));
    sums.loss = L::add(sums.loss, L::keep(valid, L::select(underflows, from_gap, from_ratio)));
    sums.gap = L::add(sums.gap, gap);
    L::store(d.query.inverse + i, inverse);
    L::store(d.query.share + i, L::mul(negative_sum, inverse));
    L::store(d.query.gap + i, gap);
  }
}

// Step lengths: eta / n, and that times the factor of inner products in scores.
struct StepWeights {
  float plain, scaled;
};

// Fills key_weight, positive_weight and, of cosine, the queries' part of radial.
template <class L>
static void weigh_queries(const VariantSettings& s, const VariantDirection& d,
                          StepWeights weights) {
  for (std::size_t i = 0; i < s.n; i += kUnit) {
    auto weight = L::broadcast(weights.scaled);
    if (s.cosine) {
      const auto square = L::load(d.query.inverse_square + i);
      const auto gap = L::mul(L::load(d.query.gap + i), L::broadcast(weights.plain));
      L::store(d.query.radial + i, L::mul(gap, square));
      weight = L::mul(weight, L::load(d.query.inverse_norm + i));
    }
    L::store(d.query.key_weight + i, L::mul(L::load(d.query.inverse + i), weight));
    if (s.cosine) weight = L::mul(weight, L::load(d.positive_inverse_norm + i));
    L::store(d.query.positive_weight + i, L::mul(L::load(d.query.share + i), weight));
  }
}

// Multiplies e^(s - max) in place: the weights of pairs in the gradient.
template <class L>
static void weigh_pairs(const VariantSettings& s, const VariantWorkspace& w,
                        const VariantDirection& d) {
  for (std::size_t j = 0; j < s.n; ++j) {
    const auto norm = L::broadcast(s.cosine ? d.key.inverse_norm[j] : 1.0f);
    for (std::size_t i = 0; i < s.n; i += kUnit) {
      float* const at = d.query.exps + j * w.samples + i;
      L::store(at, L::mul(L::mul(L::load(at), L::load(d.query.key_weight + i)), norm));
    }
  }
}

// Adds the keys' and positives' part of cosine similarity to radial and view_radial, before
// weigh_pairs.
template <class L>
static void add_key_radial(const VariantSettings& s, const VariantWorkspace& w,
                           const VariantDirection& d, StepWeights weights) {
  for (std::size_t j = 0; j < s.n; ++j) {
    auto sum = L::broadcast(0.0f);
    for (std::size_t i = 0; i < s.n; i += kUnit) {
      const auto p =
          L::mul(L::load(d.query.exps + j * w.samples + i), L::load(d.query.inverse + i));
      sum = L::fma(p, L::load(d.query.scores + j * w.samples + i), sum);
    }
    w.gathered[j] = mmcl::sum<L>(sum);
  }
  for (std::size_t j = 0; j < s.n; j += kUnit) {
    const auto plain = L::broadcast(weights.plain), zero = L::broadcast(0.0f);
    auto of_keys = L::load(w.gathered + j);
    const auto of_positives =
        L::mul(L::load(d.query.share + j), L::load(d.query.positive_score + j));
    if (s.multi()) {
      of_keys = L::subtract(of_keys, of_positives);
    } else {
      const auto square = L::load(d.query.view_inverse_square + j);
      L::store(d.query.view_radial + j,
               L::subtract(zero, L::mul(L::mul(of_positives, plain), square)));
    }
    const auto square = L::load(d.key.inverse_square + j);
    L::store(d.key.radial + j, L::fma(L::mul(of_keys, plain), square, L::load(d.key.radial + j)));
  }
}

// x <- x + y^T and y <- x^T for weights of pairs [rows, samples]; x and y may be the same.
template <class L>
static void symmetrise(const VariantSettings& s, const VariantWorkspace& w, float* x, float* y) {
  alignas(64) float from_x[kUnit * kUnit], from_y[kUnit * kUnit];
  const auto add = [&](float* to, const float* tile) {
    for (std::size_t k = 0; k < kUnit; ++k) {
      L::store(to + k * w.samples, L::add(L::load(to + k * w.samples), L::load(tile + k * kUnit)));
    }
  };
  for (std::size_t i = 0; i < s.n; i += kUnit) {
    for (std::size_t j = x == y ? i : 0; j < s.n; j += kUnit) {
      float* const upper = x + i * w.samples + j;
      float* const lower = y + j * w.samples + i;
      L::transpose(lower, w.samples, from_y, kUnit);
      L::transpose(upper, w.samples, from_x, kUnit);
      add(upper, from_y);
      if (upper != lower) add(lower, from_x);
    }
  }
}

}  // namespace lanes
}  // namespace mmcl

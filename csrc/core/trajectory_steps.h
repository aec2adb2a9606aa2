// From pre-activations to features, and from the softmax back to pre-activations, over a wrapper
// `L`.
#pragma once

#include <cmath>

#include "trajectory_scores.h"

namespace mmcl {
namespace lanes {

// The right factor of a product whose left factor is mostly 0.
struct Rows {
  const float* first;
  std::size_t stride;
};

// sum += sum_k factor[at[k]] row(at[k]), units of sixteen columns, one chain per sum.
template <class L, int kUnits>
static MMCL_INLINE void add_rows(const float* factor, const std::int32_t* at, std::size_t count,
                                 Rows rows, typename L::Float (&sum)[kUnits]) {
  for (std::size_t k = 0; k < count; ++k) {
    const auto row = static_cast<std::size_t>(at[k]);
    const auto value = L::broadcast(factor[row]);
    const float* const from = rows.first + row * rows.stride;
    MMCL_UNROLL(8)
    for (int u = 0; u < kUnits; ++u) sum[u] = L::fma(value, L::load(from + u * kUnit), sum[u]);
  }
}

// Measurements of a modality, per lane.
template <class L>
struct Measured {
  typename L::Float noise, signal;  // max <w_r, xi_i>, max |<w_r, mu>|
};

// Fills features, view_features, signal, plus, minus and the lists of active columns from z.
template <class L>
static Measured<L> activate(const TrajectorySettings& s, const TrajectoryWorkspace& workspace,
                            std::size_t positives, const ModalityWorkspace& modality) {
  Measured<L> measured{L::broadcast(-INFINITY), L::broadcast(0.0f)};
  for (std::size_t r = 0; r < s.m; ++r) {
    const float* const row = modality.z + r * workspace.width;
    std::int32_t* const active = modality.active + r * workspace.change_stride;
    std::size_t count = 0, before = 0;
    for (std::size_t i = 0; i < s.n; i += kUnit) {
      const auto value = L::load(row + i);
      const auto valid = L::first(s.n - i);
      const auto on = L::both(valid, L::less(L::broadcast(0.0f), value));
      if (i < positives) before = count + L::count(L::both(on, L::first(positives - i)));
      count += L::append(on, static_cast<std::int32_t>(i), active + count);
      measured.noise = L::maximum(L::select(valid, value, L::broadcast(-INFINITY)), measured.noise);
      L::store(modality.features + r * workspace.samples + i,
               L::keep(valid, activation<L>(value, s.q)));
      if (modality.view_features != nullptr) {
        const auto view = activation<L>(L::load(row + s.n + 1 + i), s.q);
        L::store(modality.view_features + r * workspace.samples + i, L::keep(valid, view));
      }
    }
    modality.positives[r] = static_cast<std::int32_t>(before);
    modality.count[r] = static_cast<std::int32_t>(count);
    active[count] = static_cast<std::int32_t>(s.n);
    modality.signal[r] = row[s.n];
  }
  for (std::size_t r = 0; r < s.m; r += kUnit) {
    const auto a = L::load(modality.signal + r), minus = L::subtract(L::broadcast(0.0f), a);
    measured.signal = L::maximum(L::maximum(a, minus), measured.signal);
    L::store(modality.plus + r, activation<L>(a, s.q));
    L::store(modality.minus + r, activation<L>(minus, s.q));
  }
  return measured;
}

// Scores of the positives, less the signal's part in the scores of the query's negatives: it
// depends on the query's label alone, so the negatives' scores leave it out.
template <class L>
static void score_positives(const TrajectorySettings& s, const TrajectoryWorkspace& workspace,
                            std::size_t positives, float scale, const ModalityWorkspace& query,
                            const ModalityWorkspace& key, const float* positive) {
  auto plus = L::broadcast(0.0f), minus = plus;
  for (std::size_t r = 0; r < s.m; r += kUnit) {
    const auto kp = L::load(key.plus + r), km = L::load(key.minus + r);
    plus = L::fma(L::load(query.plus + r), L::subtract(kp, km), plus);
    minus = L::fma(L::load(query.minus + r), L::subtract(km, kp), minus);
  }
  const auto by_plus = L::broadcast(sum<L>(plus)), by_minus = L::broadcast(sum<L>(minus));
  Units<4>::cover(0, padded(s.n) / kUnit, [&](auto units, std::size_t first) {
    typename L::Float sums[decltype(units)::value];
    for (auto& t : sums) t = L::broadcast(0.0f);
    const float *x = query.features + first * kUnit, *y = positive + first * kUnit;
    for (std::size_t r = 0; r < s.m; ++r, x += workspace.samples, y += workspace.samples) {
      MMCL_UNROLL(4)
      for (int u = 0; u < decltype(units)::value; ++u) {
        sums[u] = L::fma(L::load(x + u * kUnit), L::load(y + u * kUnit), sums[u]);
      }
    }
    MMCL_UNROLL(4)
    for (int u = 0; u < decltype(units)::value; ++u) {
      const std::size_t i = (first + u) * kUnit;
      const auto label = L::first(i < positives ? positives - i : 0);
      const auto both = L::add(sums[u], L::select(label, by_plus, by_minus));
      L::store(query.positive_score + i, L::mul(both, L::broadcast(scale)));
    }
  });
}

// e^(s - max) of the queries of each label.
struct ExpScores {
  ScoreBlock of_positives, of_negatives;
};

// C: minus eta times the gradient with respect to the coefficients, for the active samples and mu.
template <class L>
static void change(const TrajectorySettings& s, const TrajectoryWorkspace& workspace,
                   std::size_t positives, const ModalityWorkspace& query,
                   const ModalityWorkspace& key, const float* positive, const ExpScores& exp_scores,
                   float* coefficients) {
  for (std::size_t r = 0; r < s.m; ++r) {
    const float* const row = key.features + r * workspace.samples;
    const std::int32_t* const active = key.active + r * workspace.change_stride;
    const auto before = static_cast<std::size_t>(key.positives[r]);
    const auto count = static_cast<std::size_t>(key.count[r]);
    float* const to = query.change + r * workspace.change_stride;
    const auto change_queries = [&](const ScoreBlock& block, const std::int32_t* at,
                                    std::size_t keys, std::size_t first_key,
                                    std::size_t first_query) {
      const Rows rows{block.scores - first_key * block.stride, block.stride};
      Units<L::change_units>::cover(
          0, (block.queries + kUnit - 1) / kUnit, [&](auto units, std::size_t first) {
            typename L::Float sums[decltype(units)::value];
            for (auto& t : sums) t = L::broadcast(0.0f);
            add_rows<L, decltype(units)::value>(row, at, keys,
                                                {rows.first + first * kUnit, rows.stride}, sums);
            MMCL_UNROLL(8)
            for (int u = 0; u < decltype(units)::value; ++u) {
              const std::size_t i = (first + u) * kUnit, sample = first_query + i;
              const auto back = L::mul(L::load(query.positive_weight + sample),
                                       L::load(positive + r * workspace.samples + sample));
              const auto g = L::subtract(back, L::mul(sums[u], L::load(query.key_weight + sample)));
              const auto z = L::load(query.z + r * workspace.width + sample);
              L::store_first(to + sample, times_slope<L>(g, z, s.q), block.queries - i);
            }
          });
    };
    change_queries(exp_scores.of_positives, active + before, count - before, positives, 0);
    change_queries(exp_scores.of_negatives, active, before, 0, positives);
    float* const row_coefficients = coefficients + r * (s.n + 1);
    for (std::size_t i = 0; i < s.n; i += kUnit) {
      const auto sum = L::add(L::load_first(row_coefficients + i, s.n - i), L::load(to + i));
      L::store_first(row_coefficients + i, sum, s.n - i);
    }
  }
}

// The last column of C, through the signal patch.
template <class L>
static void change_signal(const TrajectorySettings& s, const TrajectoryWorkspace& workspace,
                          const ModalityWorkspace& query, const ModalityWorkspace& key,
                          float* coefficients) {
  const auto plus = L::broadcast(query.positive_weight_sum[0]),
             minus = L::broadcast(query.positive_weight_sum[1]);
  float change[kUnit];
  for (std::size_t r = 0; r < s.m; r += kUnit) {
    const auto a = L::load(query.signal + r), zero = L::broadcast(0.0f);
    const auto gap = L::subtract(L::load(key.plus + r), L::load(key.minus + r));
    const auto up = times_slope<L>(L::mul(gap, plus), a, s.q);
    const auto down = times_slope<L>(L::mul(gap, minus), L::subtract(zero, a), s.q);
    L::store(change, L::add(up, down));
    for (std::size_t k = 0; k < kUnit && r + k < s.m; ++k) {
      query.change[(r + k) * workspace.change_stride + s.n] = change[k];
      coefficients[(r + k) * (s.n + 1) + s.n] += change[k];
    }
  }
}

// Z <- Z + C K, block of columns by block. C K is summed on its own: it is small, and Z is rounded
// once in an epoch.
template <class L>
static void update_z(const TrajectorySettings& s, const TrajectoryWorkspace& workspace,
                     const ModalityWorkspace& modality) {
  const std::size_t units = padded(vectors_of(s)) / kUnit;
  const float* block = modality.blocks;
  for (std::size_t first = 0; first < units; first += kBlockUnits) {
    const std::size_t here = units - first < kBlockUnits ? units - first : kBlockUnits;
    for (std::size_t r = 0; r < s.m; ++r) {
      float* const row = modality.z + r * workspace.width + first * kUnit;
      const auto count = static_cast<std::size_t>(modality.count[r]) + 1;
      Units<L::update_units>::cover(0, here, [&](auto part, std::size_t unit) {
        typename L::Float sums[decltype(part)::value];
        MMCL_UNROLL(8)
        for (int u = 0; u < decltype(part)::value; ++u) sums[u] = L::broadcast(0.0f);
        add_rows<L, decltype(part)::value>(modality.change + r * workspace.change_stride,
                                           modality.active + r * workspace.change_stride, count,
                                           {block + unit * kUnit, here * kUnit}, sums);
        MMCL_UNROLL(8)
        for (int u = 0; u < decltype(part)::value; ++u) {
          float* const at = row + (unit + u) * kUnit;
          L::store(at, L::add(L::load(at), sums[u]));
        }
      });
    }
    block += (s.n + 1) * here * kUnit;
  }
}

}  // namespace lanes
}  // namespace mmcl

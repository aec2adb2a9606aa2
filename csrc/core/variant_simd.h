// A run of a model variant from its first to its last epoch, over a wrapper `L`.
#pragma once

#include <array>

#include "variant_logistic.h"

namespace mmcl {
namespace lanes {

// e^x, 0 or infinity beyond the range of normal numbers.
template <class L>
static float exp_of(double x) {
  float lanes[kUnit];
  const float size = static_cast<float>(x < 0 ? -x : x);
  L::store(lanes, exp<L>(L::broadcast(-size)));
  return x < 0 ? lanes[0] : 1.0f / lanes[0];
}

template <class L>
class VariantTrajectory {
 public:
  VariantTrajectory(const VariantSettings& settings, const VariantRun& run, float* memory)
      : s_(settings),
        run_(run),
        arena_(memory),
        w_(settings, run.codes.count, run.modalities[0].products.all == nullptr, arena_) {
    const VariantCodes& codes = run.codes;
    for (std::size_t p = 0; p < s_.patches; ++p) {
      for (std::size_t c = 0; c < codes.count; ++c) {
        w_.present[codes.axis[p * codes.stride + c]] = 1;
      }
    }
    for (std::size_t k = 0; k < s_.modalities; ++k) {
      const VariantModalityWorkspace& modality = w_.modalities[k];
      if (modality.blocks != nullptr) store_blocks(run.modalities[k].products.all, modality.blocks);
      copy_z(k, /*back=*/false);
    }
    const std::int32_t* const partner = run.modalities[0].products.partner;
    for (std::size_t i = 0; partner != nullptr && i < s_.n; ++i) {
      partners_in_order_ = partners_in_order_ && static_cast<std::size_t>(partner[i]) == i;
    }
  }

  void train(const VariantGuard& guard) {
    std::size_t t = 0;
    do {
      if (!guard.go_on(guard.context)) return;
    } while (is_finite(epoch(t)) && ++t < s_.epochs);
    for (++t; t < s_.epochs; ++t) {
      run_.loss[t] = run_.signal[t] = run_.noise[t] = __builtin_nanf("");
      if (s_.learned_tau) run_.temperature[t] = __builtin_nanf("");
    }
    if (!s_.update) return;
    for (std::size_t k = 0; k < s_.modalities; ++k) copy_z(k, /*back=*/true);
  }

 private:
  static bool is_finite(float x) { return x - x == 0.0f; }
  // Two modalities whose directions of the loss are computed together; of one modality its samples,
  // both times.
  struct Pair {
    std::size_t modality[2];
  };
  std::size_t pairs() const { return s_.modalities == 3 ? 3 : 1; }
  Pair pair(std::size_t k) const {
    if (!s_.multi()) return {{0, 0}};
    return {{k / 2, (k + 3) / 2}};  // 01, 02, 12
  }
  std::size_t directions() const { return s_.multi() ? 2 : 1; }

  // Of direction k of a pair: its queries and keys.
  const VariantModalityWorkspace& own(Pair p, std::size_t k) const {
    return w_.modalities[p.modality[k]];
  }
  const VariantModalityWorkspace& key(Pair p, std::size_t k) const { return own(p, 1 - k); }
  // Codes of its queries, of their keys and of their positives.
  const std::int32_t* code(Pair p, std::size_t k) const { return run_.codes.of[p.modality[k]]; }
  const std::int32_t* key_code(Pair p, std::size_t k) const { return code(p, 1 - k); }
  const std::int32_t* positive_code(Pair p, std::size_t k) const {
    return s_.multi() ? code(p, 1 - k) : run_.codes.of[1];
  }

  VariantDirection direction(Pair p, std::size_t k) const {
    const VariantModalityWorkspace &query = own(p, k), &of_key = key(p, k);
    return {query,
            of_key,
            run_.labels[p.modality[k]],
            run_.labels[p.modality[1 - k]],
            code(p, k),
            key_code(p, k),
            positive_code(p, k),
            s_.multi() ? of_key.features : query.view_features,
            s_.multi() ? of_key.inverse_norm : query.view_inverse_norm};
  }

  // K, [columns, vectors], as blocks of columns that fit the first-level cache.
  void store_blocks(const float* from, float* blocks) const {
    const std::size_t vectors = w_.sizes.vectors, per_block = kBlockUnits * kUnit;
    for (std::size_t first = 0; first < vectors; first += per_block) {
      const std::size_t left = vectors - first, here = left < per_block ? left : per_block;
      for (std::size_t row = 0; row < w_.sizes.columns; ++row, blocks += padded(here)) {
        __builtin_memcpy(blocks, from + row * vectors + first, here * sizeof(float));
      }
    }
  }

  void copy_z(std::size_t k, bool back) const {
    const std::size_t vectors = w_.sizes.vectors;
    for (std::size_t r = 0; r < s_.m; ++r) {
      float* const inside = w_.modalities[k].z + r * w_.width;
      float* const outside = run_.modalities[k].z + r * vectors;
      __builtin_memcpy(back ? outside : inside, back ? inside : outside, vectors * sizeof(float));
    }
  }

  float epoch(std::size_t t) {
    for (std::size_t k = 0; k < s_.modalities; ++k) {
      const VariantModalityWorkspace& modality = w_.modalities[k];
      activate_signals<L>(s_, w_, run_.codes, modality);
      const auto noise = activate_samples<L>(s_, w_, modality);
      if (k > 0) continue;
      run_.noise[t] = largest<L>(noise);
      run_.signal[t] = largest_signal<L>(s_, w_, modality);
    }
    return run_.loss[t] = s_.logistic ? logistic_epoch() : contrastive_epoch(t);
  }

  float logistic_epoch() {
    const float scale = 2.0f / (static_cast<float>(s_.m) * run_.tau);
    const float loss = logistic_loss<L>(s_, w_, run_.codes, run_.targets, scale,
                                        run_.eta * (scale / static_cast<float>(s_.n)));
    if (s_.update) {
      change_logistic<L>(s_, w_, run_.codes);
      move(0);
    }
    return loss;
  }

  float contrastive_epoch(std::size_t t) {
    const float inverse_tau = s_.learned_tau ? exp_of<L>(*run_.log_inverse_tau) : 1.0f / run_.tau;
    if (s_.learned_tau) run_.temperature[t] = 1.0f / inverse_tau;
    const float inner = s_.learned_tau ? inverse_tau / static_cast<float>(s_.m)
                                       : 1.0f / (static_cast<float>(s_.m) * run_.tau);
    if (s_.cosine) invert_all_norms();
    const auto zero = L::broadcast(0.0f);
    DirectionSums<L> sums{zero, zero};
    const auto n = static_cast<float>(s_.n);
    const float scaled = run_.eta * ((s_.cosine ? inverse_tau : inner) / n);
    for (std::size_t k = 0; k < pairs(); ++k) {
      const Pair p = pair(k);
      score(p, s_.cosine ? 1.0f : inner, inverse_tau);
      for (std::size_t way = 0; way < directions(); ++way) {
        softmax<L>(s_, w_, direction(p, way), inverse_tau, sums);
      }
      // 01 is the first pair of both, 02 that of 2 alone.
      if (s_.update) step(p, {run_.eta / n, scaled}, {k > 0, k > 1});
    }
    const float loss = sum<L>(sums.loss) / n;
    if (!s_.update) return loss;
    for (std::size_t k = 0; k < s_.modalities; ++k) move(k);
    if (s_.learned_tau) {
      *run_.log_inverse_tau -= static_cast<double>(run_.eta_tau) * (sum<L>(sums.gap) / n);
    }
    return loss;
  }

  void invert_all_norms() {
    for (std::size_t k = 0; k < s_.modalities; ++k) {
      const VariantModalityWorkspace& m = w_.modalities[k];
      invert_norms<L>(s_, w_, m, m.features, run_.codes.of[k], m.inverse_norm, m.inverse_square);
      if (s_.multi()) continue;
      invert_norms<L>(s_, w_, m, m.view_features, run_.codes.of[1], m.view_inverse_norm,
                      m.view_inverse_square);
    }
  }

  // Scores of all pairs of samples; of two modalities one product serves both directions.
  void score(Pair p, float scale, float inverse_tau) {
    const VariantModalityWorkspace& first = own(p, 0);
    const VariantDirection forth = direction(p, 0);
    const std::size_t units = padded(s_.n) / kUnit;
    // Units of the same keys together. Scores of others are left as they are: none is a negative in
    // either direction.
    for (Range same{0, 0}; same.first < units; same.first = same.last) {
      const Range keys = negative_keys(s_, forth, same.first);
      for (++same.last; same.last < units; ++same.last) {
        const Range next = negative_keys(s_, forth, same.last);
        if (next.first != keys.first || next.last != keys.last) break;
      }
      // Of one modality the scores are symmetric: tiles above the diagonal are copies.
      transposed_product<L>(key(p, 0).features, first.features, w_.samples, s_.m, scale, keys, same,
                            first.scores, w_.samples, /*lower=*/!s_.multi());
    }
    for (std::size_t i = 0; i < s_.n; i += kUnit) {
      for (std::size_t j = 0; j < (s_.multi() ? s_.n : i); j += kUnit) {
        L::transpose(first.scores + i * w_.samples + j, w_.samples,
                     own(p, 1).scores + j * w_.samples + i, w_.samples);
      }
    }
    for (std::size_t k = 0; k < directions(); ++k) {
      score_signals<L>(s_, w_, own(p, k), key(p, k), code(p, k), scale);
      score_positives<L>(s_, w_, direction(p, k), scale, inverse_tau);
    }
  }

  // Writes C of both modalities of a pair, or adds to what earlier pairs wrote.
  void step(Pair p, StepWeights weights, std::array<bool, 2> adds) {
    const std::size_t ways = directions();
    const bool weigh = !s_.cosine && !s_.key_gradients;  // later, in sums over keys
    for (std::size_t k = 0; k < ways; ++k) weigh_queries<L>(s_, direction(p, k), weights);
    if (s_.cosine && s_.key_gradients) {
      for (std::size_t k = 0; k < ways; ++k) add_key_radial<L>(s_, w_, direction(p, k), weights);
    }
    for (std::size_t k = 0; !weigh && k < ways; ++k) weigh_pairs<L>(s_, w_, direction(p, k));
    if (s_.key_gradients) {
      symmetrise<L>(s_, w_, own(p, 0).exps, own(p, 1).exps);
      if (s_.multi()) join_positive_weights(p);
    }
    for (std::size_t k = 0; k < ways; ++k) weigh_codes(p, k, weigh);
    for (std::size_t k = 0; k < ways; ++k) {
      signal_gradient<L>(s_, w_, own(p, k), key(p, k), adds[k]);
      change_samples<L>(s_, w_, own(p, k), key(p, k), direction(p, k).positive, weigh, adds[k]);
      if (w_.sizes.columns > s_.n + s_.axes) change_views<L>(s_, w_, own(p, k));
    }
  }

  // A sample is its partner's positive in both directions.
  void join_positive_weights(Pair p) {
    for (std::size_t i = 0; i < s_.n; i += kUnit) {
      const auto both =
          L::add(L::load(own(p, 0).positive_weight + i), L::load(own(p, 1).positive_weight + i));
      for (std::size_t k = 0; k < 2; ++k) L::store(own(p, k).positive_weight + i, both);
    }
  }

  // Fills code_weight and code_radial.
  void weigh_codes(Pair p, std::size_t k, bool weigh) {
    const VariantModalityWorkspace& modality = own(p, k);
    const std::int32_t *const mine = code(p, k), *const positive = positive_code(p, k);
    __builtin_memset(modality.code_weight, 0, w_.codes * w_.code_stride * sizeof(float));
    __builtin_memset(modality.code_radial, 0, w_.codes * sizeof(float));
    sum_weights_by_code<L>(s_, w_, modality.exps, weigh ? modality.key_weight : nullptr, mine,
                           key_code(p, k), modality.code_weight);
    const bool view_gradients = w_.sizes.columns > s_.n + s_.axes;
    for (std::size_t i = 0; i < s_.n; ++i) {
      const auto from = static_cast<std::size_t>(mine[i]);
      const auto to = static_cast<std::size_t>(positive[i]);
      modality.code_weight[from * w_.code_stride + to] += modality.positive_weight[i];
      if (view_gradients) {
        modality.code_weight[to * w_.code_stride + from] += modality.positive_weight[i];
      }
      if (!s_.cosine) continue;
      modality.code_radial[from] += modality.radial[i];
      if (view_gradients) modality.code_radial[to] += modality.view_radial[i];
    }
  }

  void move(std::size_t k) {
    const VariantModality& to = run_.modalities[k];
    const VariantModalityWorkspace& modality = w_.modalities[k];
    change_signals<L>(s_, w_, run_.codes, modality, to.coefficients);
    add_change<L>(s_, w_, modality, to.coefficients);
    if (to.products.all != nullptr) {
      update_z<L>(s_, w_, modality);
    } else {
      update_orthogonal_z<L>(s_, w_, to.products, partners_in_order_, modality);
    }
  }

  const VariantSettings& s_;
  const VariantRun& run_;
  Arena arena_;
  VariantWorkspace w_;
  bool partners_in_order_ = true;
};

template <class L>
static void train_variant(const VariantSettings& settings, const VariantRun& run,
                          const VariantGuard& guard, float* memory) {
  VariantTrajectory<L>(settings, run, memory).train(guard);
}

}  // namespace lanes
}  // namespace mmcl

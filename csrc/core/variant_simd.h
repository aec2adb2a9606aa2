// A run of a model variant from its first to its last epoch, over a wrapper `L`.
#pragma once

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
    for (int k = 0; k < modalities(); ++k) {
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
    for (int k = 0; k < modalities(); ++k) copy_z(k, /*back=*/true);
  }

 private:
  static bool is_finite(float x) { return x - x == 0.0f; }
  int modalities() const { return s_.multi ? 2 : 1; }
  const VariantModalityWorkspace& own(int k) const { return w_.modalities[k]; }
  const VariantModalityWorkspace& key(int k) const { return w_.modalities[s_.multi ? 1 - k : 0]; }
  // Codes of the samples of modality k, and of their keys and positives.
  const std::int32_t* code(int k) const { return k == 0 ? run_.codes.own : run_.codes.paired; }
  const std::int32_t* key_code(int k) const { return code(s_.multi ? 1 - k : 0); }
  const std::int32_t* positive_code(int k) const { return code(1 - k); }

  VariantDirection direction(int k) const {
    const VariantModalityWorkspace &query = own(k), &of_key = key(k);
    const float* const labels[2] = {run_.labels, run_.paired_labels};
    return {query,
            of_key,
            labels[k],
            labels[s_.multi ? 1 - k : 0],
            code(k),
            key_code(k),
            positive_code(k),
            s_.multi ? of_key.features : query.view_features,
            s_.multi ? of_key.inverse_norm : query.view_inverse_norm};
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

  void copy_z(int k, bool back) const {
    const std::size_t vectors = w_.sizes.vectors;
    for (std::size_t r = 0; r < s_.m; ++r) {
      float* const inside = own(k).z + r * w_.width;
      float* const outside = run_.modalities[k].z + r * vectors;
      __builtin_memcpy(back ? outside : inside, back ? inside : outside, vectors * sizeof(float));
    }
  }

  float epoch(std::size_t t) {
    for (int k = 0; k < modalities(); ++k) {
      activate_signals<L>(s_, w_, run_.codes, own(k));
      const auto noise = activate_samples<L>(s_, w_, own(k));
      if (k > 0) continue;
      run_.noise[t] = largest<L>(noise);
      run_.signal[t] = largest_signal<L>(s_, w_, own(k));
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
    score(s_.cosine ? 1.0f : inner, inverse_tau);
    const auto zero = L::broadcast(0.0f);
    DirectionSums<L> sums{zero, zero};
    for (int k = 0; k < modalities(); ++k) softmax<L>(s_, w_, direction(k), inverse_tau, sums);
    const auto n = static_cast<float>(s_.n);
    const float loss = sum<L>(sums.loss) / n;
    if (!s_.update) return loss;
    const float scaled = run_.eta * ((s_.cosine ? inverse_tau : inner) / n);
    step({run_.eta / n, scaled});
    if (s_.learned_tau) {
      *run_.log_inverse_tau -= static_cast<double>(run_.eta_tau) * (sum<L>(sums.gap) / n);
    }
    return loss;
  }

  // Scores of all pairs; of two modalities one product serves both directions.
  void score(float scale, float inverse_tau) {
    const std::size_t units = padded(s_.n) / kUnit;
    for (int k = 0; s_.cosine && k < modalities(); ++k) {
      const VariantModalityWorkspace& m = own(k);
      invert_norms<L>(s_, w_, m, m.features, code(k), m.inverse_norm, m.inverse_square);
      if (s_.multi) continue;
      invert_norms<L>(s_, w_, m, m.view_features, code(1), m.view_inverse_norm,
                      m.view_inverse_square);
    }
    const VariantModalityWorkspace& first = own(0);
    // Of one modality the scores are symmetric: tiles above the diagonal are copies.
    transposed_product<L>(key(0).features, first.features, w_.samples, s_.m, scale, s_.n, units,
                          first.scores, w_.samples, /*lower=*/!s_.multi);
    for (std::size_t i = 0; i < s_.n; i += kUnit) {
      for (std::size_t j = 0; j < (s_.multi ? s_.n : i); j += kUnit) {
        L::transpose(first.scores + i * w_.samples + j, w_.samples,
                     own(modalities() - 1).scores + j * w_.samples + i, w_.samples);
      }
    }
    for (int k = 0; k < modalities(); ++k) {
      score_signals<L>(s_, w_, own(k), key(k), code(k), scale);
      score_positives<L>(s_, w_, direction(k), scale, inverse_tau);
    }
  }

  void step(StepWeights weights) {
    const bool weigh = !s_.cosine && !s_.key_gradients;  // later, in sums over keys
    for (int k = 0; k < modalities(); ++k) weigh_queries<L>(s_, direction(k), weights);
    if (s_.cosine && s_.key_gradients) {
      for (int k = 0; k < modalities(); ++k) add_key_radial<L>(s_, w_, direction(k), weights);
    }
    for (int k = 0; !weigh && k < modalities(); ++k) weigh_pairs<L>(s_, w_, direction(k));
    if (s_.key_gradients) {
      symmetrise<L>(s_, w_, own(0).exps, own(modalities() - 1).exps);
      if (s_.multi) join_positive_weights();
    }
    for (int k = 0; k < modalities(); ++k) weigh_codes(k, weigh);
    for (int k = 0; k < modalities(); ++k) {
      signal_gradient<L>(s_, w_, own(k), key(k));
      change_samples<L>(s_, w_, own(k), key(k), direction(k).positive, weigh);
      if (w_.sizes.columns > s_.n + s_.axes) change_views<L>(s_, w_, own(k));
    }
    for (int k = 0; k < modalities(); ++k) move(k);
  }

  // A sample is its partner's positive in both directions.
  void join_positive_weights() {
    for (std::size_t i = 0; i < s_.n; i += kUnit) {
      const auto both =
          L::add(L::load(own(0).positive_weight + i), L::load(own(1).positive_weight + i));
      for (int k = 0; k < 2; ++k) L::store(own(k).positive_weight + i, both);
    }
  }

  // Fills code_weight and code_radial.
  void weigh_codes(int k, bool weigh) {
    const VariantModalityWorkspace& modality = own(k);
    const std::int32_t *const mine = code(k), *const positive = positive_code(k);
    __builtin_memset(modality.code_weight, 0, w_.codes * w_.code_stride * sizeof(float));
    __builtin_memset(modality.code_radial, 0, w_.codes * sizeof(float));
    sum_weights_by_code<L>(s_, w_, modality.exps, weigh ? modality.key_weight : nullptr, mine,
                           key_code(k), modality.code_weight);
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

  void move(int k) {
    const VariantModality& to = run_.modalities[k];
    change_signals<L>(s_, w_, run_.codes, own(k), to.coefficients);
    add_change<L>(s_, w_, own(k), to.coefficients);
    if (to.products.all != nullptr) {
      update_z<L>(s_, w_, own(k));
    } else {
      update_orthogonal_z<L>(s_, w_, to.products, partners_in_order_, own(k));
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

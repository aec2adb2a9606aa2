// A run from its first to its last epoch, over a wrapper `L`.
#pragma once

#include <cmath>
#include <cstring>

#include "trajectory_steps.h"

namespace mmcl {
namespace lanes {

// K, [n + 1, vectors], as blocks of columns that fit the first-level cache.
static inline void store_blocks(const TrajectorySettings& s, const float* gram, float* blocks) {
  const std::size_t vectors = vectors_of(s), per_block = kBlockUnits * kUnit;
  for (std::size_t first = 0; first < vectors; first += per_block) {
    const std::size_t left = vectors - first, here = left < per_block ? left : per_block;
    for (std::size_t row = 0; row <= s.n; ++row, blocks += padded(here)) {
      std::memcpy(blocks, gram + row * vectors + first, here * sizeof(float));
    }
  }
}

template <class L>
class Trajectory {
 public:
  Trajectory(const TrajectorySettings& settings, const TrajectoryRun& run, float* memory)
      : s_(settings),
        run_(run),
        arena_(memory),
        workspace_(settings, run.positives, arena_),
        scale_(1.0f / (static_cast<float>(settings.m) * run.tau)),
        weight_(run.eta * (scale_ / static_cast<float>(settings.n))) {
    const std::size_t vectors = vectors_of(s_);
    for (int k = 0; k < modalities(); ++k) {
      const ModalityWorkspace& modality = workspace_.modalities[k];
      store_blocks(s_, run.modalities[k].gram, modality.blocks);
      for (std::size_t r = 0; r < s_.m; ++r) {
        std::memcpy(modality.z + r * workspace_.width, run.modalities[k].z + r * vectors,
                    vectors * sizeof(float));
      }
    }
  }

  void train() {
    std::size_t t = 0;
    while (t < s_.epochs && is_finite(epoch(t))) ++t;
    for (++t; t < s_.epochs; ++t) {
      run_.loss[t] = run_.signal[t] = run_.noise[t] = NAN;
    }
    if (s_.update) write_back();
  }

 private:
  static bool is_finite(float x) { return x - x == 0.0f; }
  int modalities() const { return s_.multi ? 2 : 1; }
  const ModalityWorkspace& key(int k) const { return workspace_.modalities[s_.multi ? 1 - k : 0]; }
  const float* positive(int k) const {
    return s_.multi ? key(k).features : workspace_.modalities[0].view_features;
  }
  std::size_t negatives() const { return s_.n - run_.positives; }

  // Queries of label +1 of modality k: columns of the transpose of their block. Queries of label -1
  // of modality k are columns of the block whose rows belong to the other modality, if there is
  // one.
  ExpScores exp_scores(int k) const {
    return {{workspace_.scores[k].columns, workspace_.rows, negatives(), run_.positives},
            {workspace_.scores[modalities() - 1 - k].rows, workspace_.columns, run_.positives,
             negatives()}};
  }

  float epoch(std::size_t t) {
    for (int k = 0; k < modalities(); ++k) {
      const auto measured = activate<L>(s_, workspace_, run_.positives, workspace_.modalities[k]);
      if (k > 0) continue;
      run_.noise[t] = largest<L>(measured.noise);
      run_.signal[t] = largest<L>(measured.signal);
    }
    auto loss = L::broadcast(0.0f);
    for (int k = 0; k < modalities(); ++k) {
      score_positives<L>(s_, workspace_, run_.positives, scale_, workspace_.modalities[k], key(k),
                         positive(k));
      all_scores<L>(workspace_.modalities[k].features, key(k).features, workspace_, run_.positives,
                    s_.m, scale_, workspace_.scores[k]);
    }
    for (int k = 0; k < modalities(); ++k) {
      ModalityWorkspace& modality = workspace_.modalities[k];
      const ExpScores exps = exp_scores(k);
      const std::size_t first[2] = {0, run_.positives};
      const ScoreBlock* const blocks[2] = {&exps.of_positives, &exps.of_negatives};
      for (int label = 0; label < 2; ++label) {
        auto positive_weight_sum = L::broadcast(0.0f);
        softmax<L>(*blocks[label], modality.positive_score + first[label], weight_,
                   {modality.key_weight + first[label], modality.positive_weight + first[label]},
                   loss, positive_weight_sum);
        modality.positive_weight_sum[label] = sum<L>(positive_weight_sum);
      }
    }
    run_.loss[t] = sum<L>(loss) / static_cast<float>(s_.n);
    if (s_.update) step();
    return run_.loss[t];
  }

  void step() {
    for (int k = 0; k < modalities(); ++k) {
      const TrajectoryModality& to = run_.modalities[k];
      change<L>(s_, workspace_, run_.positives, workspace_.modalities[k], key(k), positive(k),
                exp_scores(k), to.coefficients);
      change_signal<L>(s_, workspace_, workspace_.modalities[k], key(k), to.coefficients);
    }
    for (int k = 0; k < modalities(); ++k) update_z<L>(s_, workspace_, workspace_.modalities[k]);
  }

  void write_back() const {
    const std::size_t vectors = vectors_of(s_);
    for (int k = 0; k < modalities(); ++k) {
      for (std::size_t r = 0; r < s_.m; ++r) {
        std::memcpy(run_.modalities[k].z + r * vectors,
                    workspace_.modalities[k].z + r * workspace_.width, vectors * sizeof(float));
      }
    }
  }

  const TrajectorySettings& s_;
  const TrajectoryRun& run_;
  Arena arena_;
  TrajectoryWorkspace workspace_;
  const float scale_, weight_;
};

template <class L>
static void train_run(const TrajectorySettings& settings, const TrajectoryRun& run, float* memory) {
  Trajectory<L>(settings, run, memory).train();
}

}  // namespace lanes
}  // namespace mmcl

// A run from its first to its last epoch, over a wrapper `L`.
#pragma once

#include "trajectory_steps.h"

namespace mmcl {
namespace lanes {

// K, [n + 1, vectors], as blocks of columns that stay in the first-level cache while they are used.
static inline void store_blocks(const TrajectorySettings& s, const float* gram, float* blocks) {
  const std::size_t vectors = vectors_of(s), per_block = kBlockUnits * kUnit;
  for (std::size_t first = 0; first < vectors; first += per_block) {
    const std::size_t left = vectors - first, here = left < per_block ? left : per_block;
    for (std::size_t row = 0; row <= s.n; ++row, blocks += padded(here)) {
      __builtin_memcpy(blocks, gram + row * vectors + first, here * sizeof(float));
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
        space_(settings, run.positives, arena_),
        scale_(1.0f / (static_cast<float>(settings.m) * run.tau)),
        weight_(run.eta * (scale_ / static_cast<float>(settings.n))) {
    const std::size_t vectors = vectors_of(s_);
    for (int k = 0; k < sides(); ++k) {
      const SideSpace& side = space_.sides[k];
      store_blocks(s_, run.sides[k].gram, side.blocks);
      for (std::size_t r = 0; r < s_.m; ++r) {
        __builtin_memcpy(side.z + r * space_.width, run.sides[k].z + r * vectors,
                         vectors * sizeof(float));
      }
    }
  }

  void train() {
    std::size_t t = 0;
    while (t < s_.epochs && is_finite(epoch(t))) ++t;
    for (++t; t < s_.epochs; ++t) {
      run_.loss[t] = run_.signal[t] = run_.noise[t] = __builtin_nanf("");
    }
    if (s_.update) write_back();
  }

 private:
  static bool is_finite(float x) { return x - x == 0.0f; }
  int sides() const { return s_.multi ? 2 : 1; }
  const SideSpace& key(int k) const { return space_.sides[s_.multi ? 1 - k : 0]; }
  const float* positive(int k) const { return s_.multi ? key(k).own : space_.sides[0].view; }
  std::size_t negatives() const { return s_.n - run_.positives; }

  // Queries of label +1 of modality k: columns of the transpose of their block. Queries of label -1
  // of modality k are columns of the block whose rows belong to the other modality, if there is
  // one.
  Pulls pulls(int k) const {
    return {{space_.scores[k].columns, space_.rows, negatives(), run_.positives},
            {space_.scores[sides() - 1 - k].rows, space_.columns, run_.positives, negatives()}};
  }

  float epoch(std::size_t t) {
    for (int k = 0; k < sides(); ++k) {
      const auto found = activate<L>(s_, space_, run_.positives, space_.sides[k]);
      if (k > 0) continue;
      run_.noise[t] = largest<L>(found.noise);
      run_.signal[t] = largest<L>(found.signal);
    }
    auto loss = L::broadcast(0.0f);
    for (int k = 0; k < sides(); ++k) {
      match<L>(s_, space_, run_.positives, scale_, space_.sides[k], key(k), positive(k));
      all_scores<L>(space_.sides[k].own, key(k).own, space_, run_.positives, s_.m, scale_,
                    space_.scores[k]);
    }
    for (int k = 0; k < sides(); ++k) {
      SideSpace& side = space_.sides[k];
      const Pulls p = pulls(k);
      const std::size_t first[2] = {0, run_.positives};
      const ScoreBlock* const blocks[2] = {&p.of_positives, &p.of_negatives};
      for (int label = 0; label < 2; ++label) {
        auto missing = L::broadcast(0.0f);
        softmax<L>(*blocks[label], side.matched + first[label], weight_,
                   {side.pull + first[label], side.push + first[label]}, loss, missing);
        side.missing[label] = sum<L>(missing);
      }
    }
    run_.loss[t] = sum<L>(loss) / static_cast<float>(s_.n);
    if (s_.update) step();
    return run_.loss[t];
  }

  void step() {
    for (int k = 0; k < sides(); ++k) {
      const TrajectorySide& to = run_.sides[k];
      change<L>(s_, space_, run_.positives, space_.sides[k], key(k), positive(k), pulls(k),
                to.moved);
      change_signal<L>(s_, space_, space_.sides[k], key(k), to.moved);
    }
    for (int k = 0; k < sides(); ++k) move<L>(s_, space_, space_.sides[k]);
  }

  void write_back() const {
    const std::size_t vectors = vectors_of(s_);
    for (int k = 0; k < sides(); ++k) {
      for (std::size_t r = 0; r < s_.m; ++r) {
        __builtin_memcpy(run_.sides[k].z + r * vectors, space_.sides[k].z + r * space_.width,
                         vectors * sizeof(float));
      }
    }
  }

  const TrajectorySettings& s_;
  const TrajectoryRun& run_;
  Arena arena_;
  TrajectorySpace space_;
  const float scale_, weight_;
};

template <class L>
static void train_run(const TrajectorySettings& settings, const TrajectoryRun& run, float* memory) {
  Trajectory<L>(settings, run, memory).train();
}

}  // namespace lanes
}  // namespace mmcl

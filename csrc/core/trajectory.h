// Complete training runs in coefficient space: full-batch gradient descent of the paper's losses
// (6) and (9) on inner products alone, float32.
//
// Pre-activations of the neurons w_r at all vectors change by Z <- Z + C K, where K holds the inner
// products of the vectors with the columns [xi_1 .. xi_n, mu] that span the weights, and
// C the change of their coefficients. Samples are sorted by label, +1 first: only scores between
// the labels are needed, and they are one block.
//
// The same bits on every instruction set: a product's sum over k is one chain of fused
// multiply-adds, sums over lanes have a fixed order of sixteen, and exponentials and logarithms are
// those of lanes_math.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mmcl {

struct Target;

// Settings that all runs of a call share.
struct TrajectorySettings {
  std::size_t n, m;    // samples, neurons
  int q;               // power of the activation
  bool multi;          // (9) on two modalities, or (6) on one with augmented views
  std::size_t epochs;  // updates; loss, signal and noise are measured before each
  bool update;         // false: measure once and change nothing (epochs must be 1)
};

// One modality of one run.
struct TrajectoryModality {
  const float* gram;  // K, [n + 1, vectors]: vectors are n noise patches, mu, n views if not multi
  float* z;           // Z, [m, vectors]
  float* coefficients;  // the coefficients A, [m, n + 1]
};

struct TrajectoryRun {
  std::size_t positives;             // samples of label +1, which come first
  float tau, eta;                    // temperature, learning rate
  TrajectoryModality modalities[2];  // the second only if multi
  float *loss, *signal, *noise;      // [epochs] each
};

// One run on this thread; `memory` is zero and begins at a multiple of 64 bytes. By instruction
// set.
using TrainRun = void (*)(const TrajectorySettings&, const TrajectoryRun&, float* memory);

// Trains each run on a single thread, at most `threads` runs at a time. A loss that is not finite
// ends a run: the rest of its curves is not-a-number.
void train_trajectories(const Target& target, const TrajectorySettings& settings,
                        const std::vector<TrajectoryRun>& runs, int threads);

}  // namespace mmcl

// The workspace of a run, in one piece of memory, and the padding of its rows.
//
// Everything is static or in an unnamed namespace, and nothing comes from the standard library's
// templates: this header is compiled for several instruction sets, and of a function with external
// linkage the linker keeps one.
#pragma once

#include "trajectory.h"
#include "units.h"

namespace mmcl {

static inline std::size_t padded(std::size_t size) { return (size + kUnit - 1) / kUnit * kUnit; }

static inline std::size_t vectors_of(const TrajectorySettings& s) {
  return s.n + 1 + (s.multi ? 0 : s.n);
}

// Units of columns in a block of the inner products. Fewer: multiply-adds wait for each other.
// More: a block leaves the first-level cache (at n = 100).
constexpr std::size_t kBlockUnits = 7;

namespace {

// Hands out parts of a piece of memory; without memory it only counts.
class Arena {
 public:
  explicit Arena(float* memory) : memory_(memory) {}
  float* floats(std::size_t count) {
    float* const part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += padded(count);
    return part;
  }
  std::int32_t* integers(std::size_t count) {
    return reinterpret_cast<std::int32_t*>(floats(count));
  }
  std::size_t used() const { return used_; }

 private:
  float* memory_;
  std::size_t used_ = 0;
};

// One modality.
struct ModalityWorkspace {
  float* blocks;                    // K by blocks of columns: [n + 1, units] one after the other
  float* z;                         // Z, [m, width]
  float *features, *view_features;  // act of the samples and of their views, [m, samples]
  float* change;                    // C, [m, change_stride]
  std::int32_t* active;  // columns with z > 0, those of label +1 first, then mu; [m, change_stride]
  std::int32_t *positives, *count;      // counts of active samples, [m]
  float *signal, *plus, *minus;         // <w_r, mu>, act of it, act of its negative, [m]
  float* positive_score;                // score of each query's positive, [samples]
  float *key_weight, *positive_weight;  // factors of the keys' e^(s - max) and of the positive in
                                        // the gradient, [samples]
  float positive_weight_sum[2];         // sum of positive_weight over the queries of each label
};

// Scores between the labels: queries of label +1 as rows of one, of label -1 as rows of the other.
struct ScoreWorkspace {
  float* rows;     // [positives + 16, columns]
  float* columns;  // its transpose
};

struct TrajectoryWorkspace {
  TrajectoryWorkspace(const TrajectorySettings& s, std::size_t positives, Arena& arena)
      : samples(padded(s.n) + kUnit),
        change_stride(padded(s.n + 1)),
        width(padded(vectors_of(s)) + kUnit),
        rows(padded(positives)),
        columns(padded(s.n - positives)) {
    for (int k = 0; k < (s.multi ? 2 : 1); ++k) {
      ModalityWorkspace& modality = modalities[k];
      modality.blocks = arena.floats((s.n + 1) * padded(vectors_of(s)));
      modality.z = arena.floats(s.m * width);
      modality.features = arena.floats(s.m * samples);
      modality.view_features = s.multi ? nullptr : arena.floats(s.m * samples);
      modality.change = arena.floats(s.m * change_stride);
      modality.active = arena.integers(s.m * change_stride);
      modality.positives = arena.integers(s.m);
      modality.count = arena.integers(s.m);
      modality.signal = arena.floats(s.m);
      modality.plus = arena.floats(s.m);
      modality.minus = arena.floats(s.m);
      modality.positive_score = arena.floats(samples);
      modality.key_weight = arena.floats(samples);
      modality.positive_weight = arena.floats(samples);
      scores[k].rows = arena.floats((rows + kUnit) * columns);
      scores[k].columns = arena.floats(rows * columns);
    }
  }
  std::size_t samples, change_stride, width;  // floats from row to row
  std::size_t rows, columns;                  // of the scores, padded
  ModalityWorkspace modalities[2];
  ScoreWorkspace scores[2];  // of multi: positives of A against negatives of B, and the reverse
};

}  // namespace

static inline std::size_t workspace_floats(const TrajectorySettings& s, std::size_t positives) {
  Arena arena(nullptr);
  TrajectoryWorkspace workspace(s, positives, arena);
  return arena.used();
}

}  // namespace mmcl

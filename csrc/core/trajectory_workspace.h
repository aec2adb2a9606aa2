// Where a run keeps what it computes, in one piece of memory, and how its rows are padded.
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

// Units of columns of the inner products that are held and worked on together: fewer leave the
// multiply-adds waiting for each other, more leave the first-level cache (at n = 100).
constexpr std::size_t kBlockUnits = 7;

namespace {

// Hands out parts of a piece of memory; without memory it only counts.
class Arena {
 public:
  explicit Arena(float* memory) : memory_(memory) {}
  float* floats(std::size_t count) {
    float* const found = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += padded(count);
    return found;
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
struct SideSpace {
  float* blocks;         // K by blocks of columns: [n + 1, units] one after the other
  float* z;              // Z, [m, width]
  float *own, *view;     // act of the samples and of their views, [m, samples]
  float* change;         // C, [m, changes]
  std::int32_t* active;  // columns with z > 0, those of label +1 first, then mu; [m, changes]
  std::int32_t *positives, *count;  // how many, without mu; [m]
  float *signal, *plus, *minus;     // <w_r, mu>, act of it, act of its negative, [m]
  float* matched;                   // score of each query's positive, [samples]
  float *pull, *push;  // what the keys and the positive weigh in the gradient, [samples]
  float missing[2];    // sum of push over the queries of each label
};

// Scores between the labels: queries of label +1 as rows of one, of label -1 as rows of the other.
struct ScoreSpace {
  float* rows;     // [positives + 16, columns]
  float* columns;  // its transpose
};

struct TrajectorySpace {
  TrajectorySpace(const TrajectorySettings& s, std::size_t positives, Arena& arena)
      : samples(padded(s.n) + kUnit),
        changes(padded(s.n + 1)),
        width(padded(vectors_of(s)) + kUnit),
        rows(padded(positives)),
        columns(padded(s.n - positives)) {
    for (int k = 0; k < (s.multi ? 2 : 1); ++k) {
      SideSpace& side = sides[k];
      side.blocks = arena.floats((s.n + 1) * padded(vectors_of(s)));
      side.z = arena.floats(s.m * width);
      side.own = arena.floats(s.m * samples);
      side.view = s.multi ? nullptr : arena.floats(s.m * samples);
      side.change = arena.floats(s.m * changes);
      side.active = arena.integers(s.m * changes);
      side.positives = arena.integers(s.m);
      side.count = arena.integers(s.m);
      side.signal = arena.floats(s.m);
      side.plus = arena.floats(s.m);
      side.minus = arena.floats(s.m);
      side.matched = arena.floats(samples);
      side.pull = arena.floats(samples);
      side.push = arena.floats(samples);
      scores[k].rows = arena.floats((rows + kUnit) * columns);
      scores[k].columns = arena.floats(rows * columns);
    }
  }
  std::size_t samples, changes, width;  // floats from row to row
  std::size_t rows, columns;            // of the scores, padded
  SideSpace sides[2];
  ScoreSpace scores[2];  // of multi: positives of A against negatives of B, and the reverse
};

}  // namespace

static inline std::size_t workspace_floats(const TrajectorySettings& s, std::size_t positives) {
  Arena arena(nullptr);
  TrajectorySpace space(s, positives, arena);
  return arena.used();
}

}  // namespace mmcl

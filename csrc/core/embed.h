// Embeddings hbar (3) of samples in coefficient space, float32, the same bits on every instruction
// set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mmcl {

struct Target;

// The largest power q of an activation; there is a multiplication for each.
constexpr int kHighestPower = 16;

// Throws std::invalid_argument unless q is in 1 .. kHighestPower.
void check_power(int q);

// Shapes that all runs of a call share.
struct EmbedShape {
  std::size_t samples, m;
  int q;
  std::size_t stride;   // of start, at least samples + 1
  std::size_t columns;  // 0: start is z
};

// z[r] = start[r] + sum_c coefficients[r][c] gram[c];
// out[out_rows[i]][r] = act(z[r][i]) + act(y_i z[r][last]).
struct Embedding {
  const float* start;            // [m, stride]: a column for each sample, then one for the signal
  const float* coefficients;     // [m, columns]
  const float* gram;             // [columns, samples + 1]
  const float* labels;           // +1 or -1, [samples]
  const std::int64_t* out_rows;  // rows of out, [samples], or null: in order
  float* out;                    // [samples, m]
};

// One run; `memory` has room for [embed_floats].
using EmbedKernel = void (*)(const EmbedShape&, const Embedding&, float* memory);

// Each run on a single thread, at most `threads` at a time.
void embed(const Target& target, const EmbedShape& shape, const std::vector<Embedding>& runs,
           int threads);

}  // namespace mmcl

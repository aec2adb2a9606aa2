// Embeddings hbar (3) of samples in coefficient space, float32, the same bits on every instruction
// set.
#pragma once

#include <cstddef>

namespace mmcl {

struct Target;

// z[r] = start[r] + sum_c moved[r][c] gram[c]; out[places[i]][r] = act(z[r][i]) + act(y_i z[r][last]).
struct Embedding {
  std::size_t samples, m;
  int q;
  const float* start;      // [m, stride]: a column for each sample, then one for the signal
  std::size_t stride;      // at least samples + 1
  const float* moved;      // [m, columns]
  const float* gram;       // [columns, samples + 1]
  std::size_t columns;     // 0: start is z
  const float* labels;     // +1 or -1, [samples]
  const std::size_t* places;  // rows of out, [samples]
  float* out;              // [samples, m]
  float* row;              // room for samples + 1, padded to units of sixteen
};

using EmbedKernel = void (*)(const Embedding&);

// `work.row` is provided here.
void embed(const Target& target, Embedding work);

}  // namespace mmcl

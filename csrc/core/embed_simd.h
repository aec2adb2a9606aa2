// Embeddings over a wrapper `L`.
#pragma once

#include "embed.h"
#include "lanes_math.h"
#include "trajectory_workspace.h"

namespace mmcl {
namespace lanes {

// Pre-activations of neuron r at sixteen vectors from `first` on.
template <class L>
static MMCL_INLINE typename L::Float pre_activations(const Embedding& work, std::size_t r,
                                                     std::size_t first) {
  const std::size_t vectors = work.samples + 1, here = vectors - first;
  auto z = L::load_first(work.start + r * work.stride + first, here);
  const float* const coefficients = work.moved + r * work.columns;
  for (std::size_t c = 0; c < work.columns; ++c) {
    const auto products = L::load_first(work.gram + c * vectors + first, here);
    z = L::fma(L::broadcast(coefficients[c]), products, z);
  }
  return z;
}

template <class L>
static void embed(const Embedding& work) {
  for (std::size_t r = 0; r < work.m; ++r) {
    for (std::size_t i = 0; i <= work.samples; i += kUnit) {
      L::store(work.row + i, pre_activations<L>(work, r, i));
    }
    float signal[kUnit + 1], features[kUnit];
    const auto plus = L::broadcast(work.row[work.samples]);
    L::store(signal, activation<L>(plus, work.q));
    L::store(signal + 1, activation<L>(L::subtract(L::broadcast(0.0f), plus), work.q));
    for (std::size_t i = 0; i < work.samples; i += kUnit) {
      L::store(features, activation<L>(L::load(work.row + i), work.q));
      for (std::size_t k = 0; k < kUnit && i + k < work.samples; ++k) {
        float* const to = work.out + work.places[i + k] * work.m;
        to[r] = features[k] + (work.labels[i + k] > 0 ? signal[0] : signal[1]);
      }
    }
  }
}

}  // namespace lanes
}  // namespace mmcl

// Embeddings over a wrapper `L`.
#pragma once

#include "embed_workspace.h"
#include "lanes_math.h"

namespace mmcl {
namespace lanes {

// Pre-activations of kRows neurons from `row` on (of those that exist) at kUnits units of vectors,
// one chain of multiply-adds each. `load(from, unit)` reads a unit.
template <class L, int kRows, int kUnits, class Load>
static MMCL_INLINE void embed_tile(const EmbedShape& s, const Embedding& run, std::size_t row,
                                   std::size_t first, Load load, float* z) {
  typename L::Float sum[kRows][kUnits];
  const float* row_coefficients[kRows];
  MMCL_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    // Neurons past the last one repeat it.
    const std::size_t neuron = row + r < s.m ? row + r : s.m - 1;
    row_coefficients[r] = run.coefficients + neuron * s.columns;
    MMCL_UNROLL(8)
    for (int u = 0; u < kUnits; ++u) {
      sum[r][u] = load(run.start + neuron * s.stride + first + u * kUnit, u);
    }
  }
  const float* products = s.columns > 0 ? run.gram + first : nullptr;
  for (std::size_t c = 0; c < s.columns; ++c, products += s.samples + 1) {
    typename L::Float value[kUnits];
    MMCL_UNROLL(8)
    for (int u = 0; u < kUnits; ++u) value[u] = load(products + u * kUnit, u);
    MMCL_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const auto factor = L::broadcast(row_coefficients[r][c]);
      MMCL_UNROLL(8)
      for (int u = 0; u < kUnits; ++u) sum[r][u] = L::fma(factor, value[u], sum[r][u]);
    }
  }
  MMCL_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    MMCL_UNROLL(8)
    for (int u = 0; u < kUnits; ++u) {
      L::store(z + (row + r) * embed_width(s) + first + u * kUnit, sum[r][u]);
    }
  }
}

// Whole units from `first` on, and the last one, which ends early, by itself.
template <class L, int kUnits>
static MMCL_INLINE std::size_t embed_columns(const EmbedShape& s, const Embedding& run,
                                             std::size_t first, float* z) {
  const std::size_t whole = (s.samples + 1) / kUnit * kUnit;
  for (; first + kUnits * kUnit <= whole; first += kUnits * kUnit) {
    for (std::size_t row = 0; row < s.m; row += L::score_rows) {
      embed_tile<L, L::score_rows, kUnits>(
          s, run, row, first,
          [](const float* from, int) MMCL_INLINE_LAMBDA { return L::load(from); }, z);
    }
  }
  return first;
}

template <class L>
static void embed(const EmbedShape& s, const Embedding& run, float* memory) {
  float* const z = memory;
  const std::size_t width = embed_width(s);
  std::size_t first = embed_columns<L, L::score_units>(s, run, 0, z);
  first = embed_columns<L, 1>(s, run, first, z);
  if (const std::size_t left = s.samples + 1 - first; left > 0) {
    for (std::size_t row = 0; row < s.m; row += L::score_rows) {
      embed_tile<L, L::score_rows, 1>(
          s, run, row, first,
          [=](const float* from, int) MMCL_INLINE_LAMBDA { return L::load_first(from, left); }, z);
    }
  }
  float* const plus = z + (padded(s.m) + kUnit) * width;
  float* const minus = plus + padded(s.m);
  for (std::size_t r = 0; r < padded(s.m); ++r) plus[r] = z[r * width + s.samples];
  for (std::size_t r = 0; r < s.m; r += kUnit) {
    const auto signal = L::load(plus + r);
    L::store(plus + r, activation<L>(signal, s.q));
    L::store(minus + r, activation<L>(L::subtract(L::broadcast(0.0f), signal), s.q));
  }
  alignas(64) float transposed[kUnit * kUnit];
  for (std::size_t i = 0; i < s.samples; i += kUnit) {
    for (std::size_t r = 0; r < s.m; r += kUnit) {
      L::transpose(z + r * width + i, width, transposed, kUnit);
      for (std::size_t k = 0; k < kUnit && i + k < s.samples; ++k) {
        const std::size_t out_row =
            run.out_rows == nullptr ? i + k : static_cast<std::size_t>(run.out_rows[i + k]);
        const auto signal = L::load((run.labels[i + k] > 0 ? plus : minus) + r);
        const auto feature = activation<L>(L::load(transposed + k * kUnit), s.q);
        L::store_first(run.out + out_row * s.m + r, L::add(feature, signal), s.m - r);
      }
    }
  }
}

}  // namespace lanes
}  // namespace mmcl

// Signal patches by codes: features, their part in scores, and the gradient through them, over a
// wrapper `L`.
#pragma once

#include "trajectory_steps.h"
#include "variant_workspace.h"

namespace mmcl {
namespace lanes {

namespace {

struct Range {
  std::size_t first, last;
};

}  // namespace

// out[i][j] = scale sum_r x[r][i] y[r][j] for rows i and whole units of columns j. Rows of x and y
// are `stride` apart, of out `out_stride`; out has room for rows up to a multiple of L::score_rows.
// Of the tiles above the diagonal only those are computed that share a strip of units with it if
// `lower`.
template <class L>
static void transposed_product(const float* x, const float* y, std::size_t stride, std::size_t m,
                               float scale, Range rows, Range units, float* out,
                               std::size_t out_stride, bool lower = false) {
  Units<L::score_units>::cover(units.first, units.last, [&](auto part, std::size_t first) {
    const std::size_t column = first * kUnit;
    const std::size_t row = lower && column > rows.first ? column : rows.first;
    if (row >= rows.last) return;
    score_strip<L, decltype(part)::value>(x + row, y + column, stride, m, scale, rows.last - row,
                                          out + row * out_stride + column, out_stride);
  });
}

// Fills signal, code_features and code_columns from z.
template <class L>
static void activate_signals(const VariantSettings& s, const VariantWorkspace& w,
                             const VariantCodes& codes, const VariantModalityWorkspace& modality) {
  for (std::size_t r = 0; r < s.m; ++r) {
    const float* const row = modality.z + r * w.width + s.n;
    for (std::size_t a = 0; a < s.axes; ++a) modality.signal[a * w.neurons + r] = row[a];
  }
  for (std::size_t p = 0; p < s.patches; ++p) {
    for (std::size_t c = 0; c < w.codes; ++c) {
      const auto axis = static_cast<std::size_t>(codes.axis[p * codes.stride + c]);
      const auto sign = L::broadcast(codes.sign[p * codes.stride + c]);
      float* const to = modality.code_features + (p * w.codes + c) * w.neurons;
      for (std::size_t r = 0; r < s.m; r += kUnit) {
        const auto z = L::mul(sign, L::load(modality.signal + axis * w.neurons + r));
        L::store(to + r, activation<L>(z, s.q));
      }
      if (s.logistic) continue;
      for (std::size_t r = 0; r < s.m; ++r) {
        modality.code_columns[(p * s.m + r) * w.code_stride + c] = to[r];
      }
    }
  }
}

// <query's signal features, key's> times scale for every pair of codes, and for every query and
// code of a key.
template <class L>
static void score_signals(const VariantSettings& s, const VariantWorkspace& w,
                          const VariantModalityWorkspace& query,
                          const VariantModalityWorkspace& key, const std::int32_t* query_code,
                          float scale) {
  transposed_product<L>(key.code_columns, query.code_columns, w.code_stride, s.patches * s.m, scale,
                        {0, w.codes}, {0, padded(w.codes) / kUnit}, query.code_scores,
                        w.code_stride);
  for (std::size_t c = 0; c < w.codes; ++c) {
    const float* const from = query.code_scores + c * w.code_stride;
    float* const to = query.signal_scores + c * w.samples;
    for (std::size_t i = 0; i < s.n; ++i) to[i] = from[query_code[i]];
  }
}

// Subtracts from code_weight, by codes, the weights of own samples (lanes) and other samples
// (rows); a lane's are multiplied by lane_weight, unless that is null.
template <class L>
static void sum_weights_by_code(const VariantSettings& s, const VariantWorkspace& w,
                                const float* weights, const float* lane_weight,
                                const std::int32_t* own_code, const std::int32_t* row_code,
                                float* code_weight) {
  float lanes[kUnit];
  for (std::size_t i = 0; i < s.n; i += kUnit) {
    const std::size_t here = s.n - i < kUnit ? s.n - i : kUnit;
    std::size_t j = 0;
    while (j < s.n) {
      const std::int32_t code = row_code[j];
      auto sum = L::broadcast(0.0f);
      for (; j < s.n && row_code[j] == code; ++j) {
        sum = L::add(sum, L::load(weights + j * w.samples + i));
      }
      if (lane_weight != nullptr) sum = L::mul(sum, L::load(lane_weight + i));
      L::store(lanes, sum);
      for (std::size_t k = 0; k < here; ++k) {
        code_weight[static_cast<std::size_t>(own_code[i + k]) * w.code_stride +
                    static_cast<std::size_t>(code)] -= lanes[k];
      }
    }
  }
}

// Fills code_gradient: minus eta times the gradient with respect to the modality's signal features;
// if `add`, adds that of a further pair of modalities.
template <class L>
static void signal_gradient(const VariantSettings& s, const VariantWorkspace& w,
                            const VariantModalityWorkspace& own,
                            const VariantModalityWorkspace& other, bool add) {
  for (std::size_t p = 0; p < s.patches; ++p) {
    for (std::size_t c = 0; c < w.codes; ++c) {
      const std::size_t at = (p * w.codes + c) * w.neurons;
      const float* const weight = own.code_weight + c * w.code_stride;
      const auto radial = L::broadcast(own.code_radial[c]);
      for (std::size_t r = 0; r < s.m; r += kUnit) {
        auto sum = L::mul(radial, L::load(own.code_features + at + r));
        const float* from = other.code_features + p * w.codes * w.neurons + r;
        for (std::size_t k = 0; k < w.codes; ++k, from += w.neurons) {
          if (weight[k] == 0.0f) continue;  // classes that no negative connects
          sum = L::fma(L::broadcast(weight[k]), L::load(from), sum);
        }
        if (add) sum = L::add(sum, L::load(own.code_gradient + at + r));
        L::store(own.code_gradient + at + r, sum);
      }
    }
  }
}

// C's columns of the signals, from code_gradient.
template <class L>
static void change_signals(const VariantSettings& s, const VariantWorkspace& w,
                           const VariantCodes& codes, const VariantModalityWorkspace& modality,
                           float* coefficients) {
  float change[kUnit];
  for (std::size_t a = 0; a < s.axes; ++a) {
    if (w.present[a] == 0) continue;
    for (std::size_t r = 0; r < s.m; r += kUnit) {
      auto sum = L::broadcast(0.0f);
      const auto z = L::load(modality.signal + a * w.neurons + r);
      for (std::size_t p = 0; p < s.patches; ++p) {
        for (std::size_t c = 0; c < w.codes; ++c) {
          if (static_cast<std::size_t>(codes.axis[p * codes.stride + c]) != a) continue;
          const auto sign = L::broadcast(codes.sign[p * codes.stride + c]);
          const auto g = L::load(modality.code_gradient + (p * w.codes + c) * w.neurons + r);
          sum = L::fma(sign, times_slope<L>(g, L::mul(sign, z), s.q), sum);
        }
      }
      L::store(change, sum);
      for (std::size_t k = 0; k < kUnit && r + k < s.m; ++k) {
        modality.change[(r + k) * w.change_stride + s.n + a] = change[k];
        coefficients[(r + k) * w.sizes.columns + s.n + a] += change[k];
      }
    }
  }
}

}  // namespace lanes
}  // namespace mmcl

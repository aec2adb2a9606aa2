// The logistic loss of a network whose second layer is fixed, over a wrapper `L`.
#pragma once

#include "variant_steps.h"

namespace mmcl {
namespace lanes {

// +1 for the first half of the neurons, -1 for the second.
static inline float output_sign(const VariantSettings& s, std::size_t r) {
  return r < s.m / 2 ? 1.0f : -1.0f;
}

// Mean loss log(1 + e^(-t f)) of f = scale sum_r a_r hbar_r; key_weight receives t sigma(-t f)
// times weight: minus eta times the gradient with respect to a feature is a_r times it.
template <class L>
static float logistic_loss(const VariantSettings& s, const VariantWorkspace& w,
                           const VariantCodes& codes, const float* targets, float scale,
                           float weight) {
  const VariantModalityWorkspace& modality = w.modalities[0];
  for (std::size_t i = 0; i < s.n; ++i) {
    float sum = 0.0f;
    for (std::size_t p = 0; p < s.patches; ++p) {
      const float* const row = modality.code_features +
                               (p * w.codes + static_cast<std::size_t>(codes.of[0][i])) * w.neurons;
      for (std::size_t r = 0; r < s.m; ++r) sum += output_sign(s, r) * row[r];
    }
    w.gathered[i] = sum;
  }
  auto loss = L::broadcast(0.0f);
  const auto zero = loss, one = L::broadcast(1.0f);
  for (std::size_t i = 0; i < s.n; i += kUnit) {
    auto sum = L::load(w.gathered + i);
    for (std::size_t r = 0; r < s.m; ++r) {
      sum = L::fma(L::broadcast(output_sign(s, r)), L::load(modality.features + r * w.samples + i),
                   sum);
    }
    const auto valid = L::first(s.n - i);
    const auto target = L::load_first(targets + i, s.n - i);
    const auto margin = L::mul(L::mul(sum, L::broadcast(scale)), target);
    const auto minus = L::subtract(zero, margin);
    const auto e = exp<L>(L::minimum(minus, margin));
    const auto of_one = L::add(log1p<L>(e), L::maximum(minus, zero));
    loss = L::add(loss, L::keep(valid, of_one));
    // sigma(-t f) = e / (1 + e) or 1 / (1 + e), whichever exponent is negative.
    const auto share = L::divide(L::select(L::less(margin, zero), one, e), L::add(one, e));
    L::store(modality.key_weight + i,
             L::keep(valid, L::mul(L::mul(share, target), L::broadcast(weight))));
  }
  return sum<L>(loss) / static_cast<float>(s.n);
}

// C's columns of the samples, and code_gradient.
template <class L>
static void change_logistic(const VariantSettings& s, const VariantWorkspace& w,
                            const VariantCodes& codes) {
  const VariantModalityWorkspace& modality = w.modalities[0];
  for (std::size_t r = 0; r < s.m; ++r) {
    const auto sign = L::broadcast(output_sign(s, r));
    for (std::size_t i = 0; i < s.n; i += kUnit) {
      const auto g = L::mul(sign, L::load(modality.key_weight + i));
      L::store_first(modality.change + r * w.change_stride + i,
                     times_slope<L>(g, L::load(modality.z + r * w.width + i), s.q), s.n - i);
    }
  }
  for (std::size_t c = 0; c < w.codes; ++c) {
    float sum = 0.0f;
    for (std::size_t i = 0; i < s.n; ++i) {
      if (static_cast<std::size_t>(codes.of[0][i]) == c) sum += modality.key_weight[i];
    }
    for (std::size_t p = 0; p < s.patches; ++p) {
      float* const to = modality.code_gradient + (p * w.codes + c) * w.neurons;
      for (std::size_t r = 0; r < s.m; ++r) to[r] = output_sign(s, r) * sum;
    }
  }
}

}  // namespace lanes
}  // namespace mmcl

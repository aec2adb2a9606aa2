// Training runs of model variants on exactly sized memory, for the tests.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "../core/variant.h"

namespace mmcl::tests {

// Values of both signs.
inline std::vector<float> spread_values(std::size_t count, float scale, unsigned seed) {
  std::vector<float> out(count);
  for (float& x : out) {
    seed = seed * 1664525u + 1013904223u;
    x = scale * (static_cast<float>(seed >> 8) * 0x1p-23f - 1.0f);
  }
  return out;
}

struct VariantProblem {
  VariantSettings s;
  std::size_t codes;
  bool orthogonal;
  std::vector<float> products[3], squares[3], with_view[3], z[3], coefficients[3];
  std::vector<std::int32_t> partner, axis, code[3];
  std::vector<float> sign, labels, targets, loss, signal, noise, tau;
  double log_inverse_tau = 1.0;

  VariantProblem(const VariantSettings& settings, std::size_t code_count, bool is_orthogonal)
      : s(settings), codes(code_count), orthogonal(is_orthogonal) {
    const VariantSizes sizes = sizes_of(s);
    for (unsigned k = 0; k < s.modalities; ++k) {
      products[k] = spread_values(sizes.columns * sizes.vectors, 0.3f, 3 + k);
      squares[k] = spread_values(sizes.vectors, 1.0f, 5 + k);
      with_view[k] = spread_values(s.n, 1.0f, 7 + k);
      z[k] = spread_values(s.m * sizes.vectors, 0.3f, 9 + k);
      coefficients[k].assign(s.m * sizes.columns, 0.0f);
    }
    for (std::size_t c = 0; c < s.patches * codes; ++c) {
      axis.push_back(static_cast<std::int32_t>(c % s.axes));
      sign.push_back(c % 3 == 0 ? 1.0f : -1.0f);
    }
    for (std::size_t i = 0; i < s.n; ++i) {
      partner.push_back(static_cast<std::int32_t>((i + 1) % s.n));
      code[0].push_back(static_cast<std::int32_t>(i * codes / s.n));
      code[1].push_back(static_cast<std::int32_t>((i + 1) % codes));
      code[2].push_back(static_cast<std::int32_t>((2 * i + 1) % codes));
      labels.push_back(static_cast<float>(code[0].back()));
      targets.push_back(i % 2 == 0 ? 1.0f : -1.0f);
    }
  }

  void train(const Target& target, std::size_t epochs, const std::function<bool()>& go_on) {
    s.epochs = epochs;
    loss.assign(epochs, 77.0f);
    signal = noise = loss;
    tau.assign(s.learned_tau ? epochs : 0, 77.0f);
    std::vector<VariantRun> runs(1);
    VariantRun& run = runs[0];
    run.codes = {codes, codes, axis.data(), sign.data(), {}};
    for (std::size_t k = 0; k < kinds_of_samples(s); ++k) {
      run.codes.of[k] = code[k].data();
      run.labels[k] = labels.data();
    }
    run.targets = s.logistic ? targets.data() : nullptr;
    run.tau = run.eta = 0.1f;
    run.eta_tau = 0.01f;
    run.log_inverse_tau = s.learned_tau ? &log_inverse_tau : nullptr;
    for (std::size_t k = 0; k < s.modalities; ++k) {
      VariantProducts given{};
      if (orthogonal) {
        given = {nullptr, squares[k].data(), with_view[k].data(), partner.data()};
      } else {
        given.all = products[k].data();
      }
      run.modalities[k] = {given, z[k].data(), coefficients[k].data()};
    }
    run.loss = loss.data();
    run.signal = signal.data();
    run.noise = noise.data();
    run.temperature = tau.data();
    train_variants(target, s, runs, 2, go_on);
  }
};

}  // namespace mmcl::tests

// Contrastive losses of every form on exactly sized memory, for the tests.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../core/contrast.h"

namespace mmcl::tests {

using Floats = std::vector<float>;

// Values of both signs, up to 2 in size.
inline Floats spread(std::size_t n, std::uint32_t state) {
  Floats x(n);
  for (float& value : x) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) * 0x1p-22f - 2.0f;
  }
  return x;
}

struct Setting {
  const char* name;
  Form form;
  bool symmetric, same_rows, labels, supervised, products;
  std::size_t hard, extra;
  double bias, smoothing;
  bool excluded = false;
};

constexpr Setting kSettings[] = {
    {"pairs", Form::kSoftmax, false, false, false, false, false, 0, 0, 0.0, 0.0},
    {"symmetric", Form::kSoftmax, true, false, true, false, false, 0, 0, 0.0, 0.1},
    {"same rows", Form::kDecoupled, false, true, false, false, false, 0, 0, 0.0, 0.0},
    {"supervised", Form::kDecoupled, false, true, true, true, false, 0, 0, 0.0, 0.0},
    {"hard", Form::kSoftmax, false, false, true, false, true, 3, 2, 0.0, 0.2},
    {"sigmoid", Form::kSigmoid, false, false, false, false, false, 0, 0, -1.0, 0.0},
    {"excluded", Form::kSoftmax, true, false, false, false, false, 0, 0, 0.0, 0.0, true},
    {"excluded, extra", Form::kSoftmax, false, false, false, false, false, 0, 2, 0.0, 0.0, true},
};

// Losses, then weights of scores, hard, positive, temperature and bias.
inline std::vector<Floats> evaluate(const Target& target, const Setting& s, std::size_t n,
                                    std::size_t m, const Floats& products) {
  Floats scores = products, hard = spread(n * s.hard, 5), outside = spread(n, 6);
  std::vector<std::int64_t> at(n), labels(n), key_labels(m - s.extra);
  for (std::size_t i = 0; i < n; ++i) {
    at[i] = static_cast<std::int64_t>(s.same_rows && (i ^ 1) < n ? i ^ 1 : i);
    labels[i] = static_cast<std::int64_t>(i % 3);
  }
  for (std::size_t j = 0; j < key_labels.size(); ++j)
    key_labels[j] = static_cast<std::int64_t>(j % 3);
  Contrast c{};
  c.form = s.form;
  c.scores = {scores.data(), n, m, static_cast<std::ptrdiff_t>(m)};
  c.hard = {hard.data(), n, s.hard, static_cast<std::ptrdiff_t>(s.hard)};
  c.positive = s.supervised || s.products ? nullptr : at.data();
  c.positive_products = s.products ? outside.data() : nullptr;
  c.labels = s.labels ? labels.data() : nullptr;
  c.key_labels = s.labels ? key_labels.data() : nullptr;
  // std::vector<bool> has no array of bool.
  const auto excluded = std::make_unique<bool[]>(n * key_labels.size());
  for (std::size_t k = 0; k < n * key_labels.size(); ++k) excluded[k] = k % 3 == 0;
  c.excluded = s.excluded ? excluded.get() : nullptr;
  c.extra = s.extra;
  c.supervised = s.supervised;
  c.exclude_self = s.same_rows;
  c.symmetric = s.symmetric;
  c.same_rows = s.same_rows;
  c.inverse_temperature = 2.5;
  c.bias = s.bias;
  c.smoothing = s.smoothing;
  Floats chances(n * m);
  c.chances = {chances.data(), n, m, static_cast<std::ptrdiff_t>(m)};
  Floats statistics(n * kStatistics * (s.symmetric ? 2 : 1)), losses(n);
  contrast_losses(target, c, statistics.data(), losses.data());
  Floats of_scores(n * m), of_hard(n * s.hard), of_positive(n), of_temperature(n), of_bias(n);
  const Floats upstream(n, 1.0f);
  const ContrastWeights weights{{of_scores.data(), n, m, static_cast<std::ptrdiff_t>(m)},
                                {of_hard.data(), n, s.hard, static_cast<std::ptrdiff_t>(s.hard)},
                                s.products ? of_positive.data() : nullptr,
                                of_temperature.data(),
                                of_bias.data()};
  contrast_weights(target, c, statistics.data(), upstream.data(), true, s.symmetric, weights);
  return {losses, of_scores, of_hard, of_positive, of_temperature, of_bias};
}

}  // namespace mmcl::tests

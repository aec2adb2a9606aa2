// Plain C++ test of csrc/core/contrast, meant to run under the address and undefined-behaviour
// sanitizers: every form on exactly sized memory, on every target, against the first target; and
// weights against differences of losses.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../core/contrast.h"
#include "../core/rows.h"

namespace {

int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

using Floats = std::vector<float>;

Floats normals(std::size_t n, std::uint32_t state) {
  Floats x(n);
  for (float& value : x) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) * 0x1p-22f - 2.0f;
  }
  return x;
}

struct Setting {
  const char* name;
  mmcl::Form form;
  bool symmetric, same_rows, labels, supervised, products;
  std::size_t hard, extra;
  double bias, smoothing;
  bool excluded = false;
};

constexpr Setting kSettings[] = {
    {"pairs", mmcl::Form::kSoftmax, false, false, false, false, false, 0, 0, 0.0, 0.0},
    {"symmetric", mmcl::Form::kSoftmax, true, false, true, false, false, 0, 0, 0.0, 0.1},
    {"same rows", mmcl::Form::kDecoupled, false, true, false, false, false, 0, 0, 0.0, 0.0},
    {"supervised", mmcl::Form::kDecoupled, false, true, true, true, false, 0, 0, 0.0, 0.0},
    {"hard", mmcl::Form::kSoftmax, false, false, true, false, true, 3, 2, 0.0, 0.2},
    {"sigmoid", mmcl::Form::kSigmoid, false, false, false, false, false, 0, 0, -1.0, 0.0},
    {"excluded", mmcl::Form::kSoftmax, true, false, false, false, false, 0, 0, 0.0, 0.0, true},
    {"excluded, extra", mmcl::Form::kSoftmax, false, false, false, false, false, 0, 2, 0.0, 0.0,
     true},
};

// Losses, then weights of scores, hard, positive, temperature and bias.
std::vector<Floats> evaluate(const mmcl::Target& target, const Setting& s, std::size_t n,
                             std::size_t m, const Floats& products) {
  Floats scores = products, hard = normals(n * s.hard, 5), outside = normals(n, 6);
  std::vector<std::int64_t> at(n), labels(n), key_labels(m - s.extra);
  for (std::size_t i = 0; i < n; ++i) {
    at[i] = static_cast<std::int64_t>(s.same_rows && (i ^ 1) < n ? i ^ 1 : i);
    labels[i] = static_cast<std::int64_t>(i % 3);
  }
  for (std::size_t j = 0; j < key_labels.size(); ++j)
    key_labels[j] = static_cast<std::int64_t>(j % 3);
  mmcl::Contrast c{};
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
  Floats statistics(n * mmcl::kStatistics * (s.symmetric ? 2 : 1)), losses(n);
  mmcl::contrast_losses(target, c, statistics.data(), losses.data());
  Floats of_scores(n * m), of_hard(n * s.hard), of_positive(n), of_temperature(n), of_bias(n);
  const Floats upstream(n, 1.0f);
  const mmcl::ContrastWeights weights{
      {of_scores.data(), n, m, static_cast<std::ptrdiff_t>(m)},
      {of_hard.data(), n, s.hard, static_cast<std::ptrdiff_t>(s.hard)},
      s.products ? of_positive.data() : nullptr,
      of_temperature.data(),
      of_bias.data()};
  mmcl::contrast_weights(target, c, statistics.data(), upstream.data(), true, s.symmetric, weights);
  return {losses, of_scores, of_hard, of_positive, of_temperature, of_bias};
}

double sum(const Floats& x) {
  double total = 0.0;
  for (const float value : x) total += double{value};
  return total;
}

void check_weights(const Setting& s) {
  constexpr std::size_t n = 7;
  const std::size_t m = s.symmetric || s.same_rows ? n : n + 4;
  const mmcl::Target& target = *mmcl::targets().front();
  Floats products = normals(n * m, 1);
  if (s.same_rows) {  // the products of rows with themselves are symmetric
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < i; ++j) products[i * m + j] = products[j * m + i];
  }
  const Floats weights = evaluate(target, s, n, m, products)[1];
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = s.same_rows ? i + 1 : 0; j < m; ++j) {
      double losses[2];
      for (const int side : {0, 1}) {
        Floats moved = products;
        const float step = side == 0 ? -0x1p-7f : 0x1p-7f;
        moved[i * m + j] += step;
        if (s.same_rows) moved[j * m + i] += step;
        losses[side] = sum(evaluate(target, s, n, m, moved)[0]);
      }
      const double slope = (losses[1] - losses[0]) * 64.0;
      expect(std::abs(slope - double{weights[i * m + j]}) < 2e-3,
             std::string(s.name) + ": weight " + std::to_string(i) + ", " + std::to_string(j));
    }
  }
}

void check_targets(const Setting& s) {
  for (const std::size_t n : {1u, 2u, 6u, 33u, 70u}) {
    const std::size_t m = s.symmetric || s.same_rows ? n : n + s.extra + 5;
    const Floats products = normals(n * m, 2);
    const auto first = evaluate(*mmcl::targets().front(), s, n, m, products);
    for (const mmcl::Target* target : mmcl::targets()) {
      const auto found = evaluate(*target, s, n, m, products);
      for (std::size_t k = 0; k < found.size(); ++k) {
        const bool same = found[k].empty() || std::memcmp(found[k].data(), first[k].data(),
                                                          found[k].size() * sizeof(float)) == 0;
        expect(same, std::string(s.name) + " on " + target->name + ": result " + std::to_string(k));
      }
    }
  }
}

// Products, unit rows and their gradient on exactly sized memory, equal on every target.
void check_rows() {
  for (const std::size_t d : {1u, 7u, 1030u}) {
    constexpr std::size_t n = 3;
    const auto stride = static_cast<std::ptrdiff_t>(d);
    const Floats x = normals(n * d, 8), y = normals(n * d, 9);
    const auto evaluate = [&](const mmcl::Target& target) {
      Floats products(n), unit = x, norm(n), gradient = y;
      const mmcl::Matrix<float> in_place{unit.data(), n, d, stride};
      const mmcl::Matrix<const float> rows{unit.data(), n, d, stride};
      mmcl::row_products(target, {x.data(), n, d, stride}, {y.data(), n, d, stride},
                         products.data());
      mmcl::unit_rows(target, rows, in_place, norm.data());
      mmcl::unit_rows_gradient(target, rows, norm.data(), {gradient.data(), n, d, stride});
      return std::vector<Floats>{products, unit, norm, gradient};
    };
    const auto first = evaluate(*mmcl::targets().front());
    double along = 0.0;  // a gradient in rows is at right angles to them
    for (std::size_t j = 0; j < d; ++j) along += double{first[1][j]} * double{first[3][j]};
    expect(std::abs(along) < 1e-5, "gradient of unit rows, d = " + std::to_string(d));
    for (const mmcl::Target* target : mmcl::targets()) {
      const auto found = evaluate(*target);
      for (std::size_t k = 0; k < found.size(); ++k) {
        const bool same =
            std::memcmp(found[k].data(), first[k].data(), found[k].size() * sizeof(float)) == 0;
        expect(same, std::string("rows on ") + target->name + ": result " + std::to_string(k));
      }
    }
  }
}

}  // namespace

int main() {
  check_rows();
  for (const Setting& setting : kSettings) {
    check_weights(setting);
    check_targets(setting);
  }
  std::printf(failures == 0 ? "test_contrast: passed\n" : "test_contrast: FAILED\n");
  return failures == 0 ? 0 : 1;
}

// Plain C++ test of csrc/core/contrast, meant to run under the address and undefined-behaviour
// sanitizers: every form on exactly sized memory, on every target, against the first target; and
// weights against differences of losses.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "../core/rows.h"
#include "contrast_cases.h"

namespace {

int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

using mmcl::tests::evaluate;
using mmcl::tests::Floats;
using mmcl::tests::kSettings;
using mmcl::tests::Setting;
using mmcl::tests::spread;

double sum(const Floats& x) {
  double total = 0.0;
  for (const float value : x) total += double{value};
  return total;
}

void check_weights(const Setting& s) {
  constexpr std::size_t n = 7;
  const std::size_t m = s.symmetric || s.same_rows ? n : n + 4;
  const mmcl::Target& target = *mmcl::targets().front();
  Floats products = spread(n * m, 1);
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
    const Floats products = spread(n * m, 2);
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
    const Floats x = spread(n * d, 8), y = spread(n * d, 9);
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

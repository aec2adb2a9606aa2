// Plain C++ test of csrc/core/softmax, meant to run under the address and undefined-behaviour
// sanitizers: every pass of every target on exactly sized memory, against libm and the first
// target.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "../core/softmax.h"

namespace {

int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

using Floats = std::vector<float>;

// A block that begins and ends with the memory it has: no padding, rows `gap` apart.
struct Block {
  std::size_t rows, columns, gap;
  Floats values;
  Block(std::size_t c, std::size_t m, std::size_t apart)
      : rows(c), columns(m), gap(apart), values(c * m + (c > 0 ? (c - 1) * apart : 0)) {
    std::uint32_t state = 12345;
    for (float& value : values) {
      state = state * 1664525u + 1013904223u;
      value = static_cast<float>(state >> 8) * 0x1p-18f - 32.0f;
      if (state >> 29 == 0) value = -0x1p+127f;
    }
  }
  template <class T>
  mmcl::Matrix<T> matrix() {
    return {values.data(), rows, columns, static_cast<std::ptrdiff_t>(columns + gap)};
  }
};

// Everything that the passes leave, one after the other.
Floats results(const mmcl::Target& target, std::size_t c, std::size_t m, std::size_t gap,
               int threads) {
  Floats all;
  const auto keep = [&all](const Floats& x) { all.insert(all.end(), x.begin(), x.end()); };
  const mmcl::Matrix<float> none{nullptr, 0, 0, 0};
  Floats row_top(c, -5.0f), row_total(c), column_top(m, -5.0f), column_total(m);
  const mmcl::TopTotal rows{row_top.data(), row_total.data()};
  const mmcl::TopTotal columns{column_top.data(), column_total.data()};
  const auto keep_statistics = [&] {
    for (const Floats* x : {&row_top, &row_total, &column_top, &column_total}) keep(*x);
    std::fill(row_top.begin(), row_top.end(), -5.0f);
    std::fill(column_top.begin(), column_top.end(), -5.0f);
  };
  Block scores(c, m, gap), out(c, m, gap);
  mmcl::softmax_both(target, scores.matrix<const float>(), rows, columns, threads);
  keep_statistics();
  mmcl::softmax_rows(target, scores.matrix<const float>(), none, rows, threads);
  mmcl::softmax_columns(target, scores.matrix<const float>(), none, columns, threads);
  keep_statistics();
  mmcl::softmax_rows(target, scores.matrix<const float>(), out.matrix<float>(), rows, threads);
  keep(out.values);
  mmcl::softmax_columns(target, scores.matrix<const float>(), out.matrix<float>(), columns,
                        threads);
  keep(out.values);
  const mmcl::TopScale row_scale{row_top.data(), row_total.data()};
  const mmcl::TopScale column_scale{column_top.data(), column_total.data()};
  for (const mmcl::TopScale* side : {&column_scale, static_cast<const mmcl::TopScale*>(nullptr)}) {
    Block weights(c, m, gap);
    mmcl::softmax_weights(target, weights.matrix<float>(), row_scale, side, threads);
    keep(weights.values);
  }
  Block sigmoid(c, m, gap);
  mmcl::softplus_rows(target, sigmoid.matrix<float>(), row_total.data(), threads);
  keep(sigmoid.values);
  keep(row_total);
  return all;
}

// The row totals against the C library in double.
void check_totals(const mmcl::Target& target, std::size_t c, std::size_t m) {
  Block scores(c, m, 0);
  Floats top(c, -5.0f), total(c);
  mmcl::softmax_rows(target, scores.matrix<const float>(), {nullptr, 0, 0, 0},
                     {top.data(), total.data()}, 1);
  for (std::size_t i = 0; i < c; ++i) {
    double exact = 0.0;
    for (std::size_t j = 0; j < m; ++j) {
      exact += std::exp2(double{scores.values[i * m + j] - top[i]});
    }
    expect(std::fabs(total[i] - exact) <= 40 * 0x1p-24 * exact,
           std::string(target.name) + ": total of " + std::to_string(m) + " columns");
  }
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check(std::size_t c, std::size_t m, std::size_t gap, int threads) {
  const Floats expected = results(*mmcl::targets()[0], c, m, gap, 1);
  for (const mmcl::Target* target : mmcl::targets()) {
    expect(same_bits(results(*target, c, m, gap, threads), expected),
           std::string(target->name) + ": " + std::to_string(c) + " x " + std::to_string(m) +
               " scores, gap " + std::to_string(gap));
    check_totals(*target, c, m);
  }
}

}  // namespace

int main() {
  for (std::size_t m = 0; m <= 70; ++m) check(3, m, m % 3, 1);
  check(0, 5, 0, 1);
  check(65, 1, 0, 1);
  check(130, 1100, 5, 2);
  check(140, 2100, 0, 3);  // large enough for two threads, in three segments
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

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
  Floats row_max(c, -5.0f), row_sum(c), column_max(m, -5.0f), column_sum(m);
  const mmcl::MaxSum rows{row_max.data(), row_sum.data()};
  const mmcl::MaxSum columns{column_max.data(), column_sum.data()};
  const auto keep_statistics = [&] {
    for (const Floats* x : {&row_max, &row_sum, &column_max, &column_sum}) keep(*x);
    std::fill(row_max.begin(), row_max.end(), -5.0f);
    std::fill(column_max.begin(), column_max.end(), -5.0f);
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
  const mmcl::MaxScale row_scale{row_max.data(), row_sum.data()};
  const mmcl::MaxScale column_scale{column_max.data(), column_sum.data()};
  for (const mmcl::MaxScale* side : {&column_scale, static_cast<const mmcl::MaxScale*>(nullptr)}) {
    Block weights(c, m, gap);
    mmcl::softmax_weights(target, weights.matrix<float>(), row_scale, side, threads);
    keep(weights.values);
  }
  Block sigmoid(c, m, gap);
  mmcl::softplus_rows(target, sigmoid.matrix<float>(), row_sum.data(), threads);
  keep(sigmoid.values);
  keep(row_sum);
  return all;
}

// The row sums against the C library in double.
void check_sums(const mmcl::Target& target, std::size_t c, std::size_t m) {
  Block scores(c, m, 0);
  Floats max(c, -5.0f), sum(c);
  mmcl::softmax_rows(target, scores.matrix<const float>(), {nullptr, 0, 0, 0},
                     {max.data(), sum.data()}, 1);
  for (std::size_t i = 0; i < c; ++i) {
    double exact = 0.0;
    for (std::size_t j = 0; j < m; ++j) {
      exact += std::exp2(double{scores.values[i * m + j] - max[i]});
    }
    expect(std::fabs(sum[i] - exact) <= 40 * 0x1p-24 * exact,
           std::string(target.name) + ": sum of " + std::to_string(m) + " columns");
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
    check_sums(*target, c, m);
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

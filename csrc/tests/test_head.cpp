// Plain C++ test of logistic heads, meant to run under the address and undefined-behaviour
// sanitizers: buffers are exactly as large as they must be, every target gives the same bits, and
// the gradient at its optimum vanishes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../core/head.h"
#include "../core/target.h"

namespace {

int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

struct Shape {
  std::size_t problems, n, p;
  double scale;
};

struct Heads {
  std::vector<double> weight, bias, share;
  std::vector<char> converged;
  std::vector<std::int64_t> steps;
};

bool operator==(const Heads& a, const Heads& b) {
  const auto same = [](const std::vector<double>& x, const std::vector<double>& y) {
    return std::memcmp(x.data(), y.data(), x.size() * sizeof(double)) == 0;
  };
  return same(a.weight, b.weight) && same(a.bias, b.bias) && same(a.share, b.share) &&
         a.converged == b.converged && a.steps == b.steps;
}

template <class T>
Heads solved(const mmcl::Target& target, const Shape& s, const std::vector<T>& x,
             const std::vector<float>& y, int threads) {
  static_assert(sizeof(bool) == 1, "flags are read as bytes");
  Heads h{std::vector<double>(s.problems * s.p), std::vector<double>(s.problems),
          std::vector<double>(s.problems), std::vector<char>(s.problems),
          std::vector<std::int64_t>(s.problems)};
  const mmcl::HeadSettings settings{s.n, s.p, 1.0 / static_cast<double>(s.n), 1e-10, 200};
  mmcl::HeadBatch<T> batch{s.problems,     x.data(),
                           y.data(),       h.weight.data(),
                           h.bias.data(),  reinterpret_cast<bool*>(h.converged.data()),
                           h.steps.data(), h.share.data()};
  mmcl::fit_heads(target, settings, batch, threads);
  mmcl::score_heads(target, s.n, s.p, batch, threads);
  return h;
}

// The largest component of the gradient at problem k's head, relative to its allowance.
template <class T>
double excess(const Shape& s, const T* x, const float* y, const double* weight, double bias) {
  std::vector<double> gradient(s.p), mean(s.p);
  double strength = 0, along = 0, largest = 0;
  for (std::size_t j = 0; j < s.p; ++j) {
    for (std::size_t i = 0; i < s.n; ++i) mean[j] += x[i * s.p + j] / static_cast<double>(s.n);
  }
  for (std::size_t i = 0; i < s.n; ++i) {
    double score = bias;
    for (std::size_t j = 0; j < s.p; ++j) score += weight[j] * x[i * s.p + j];
    const double wrong = 1.0 / (1.0 + std::exp(y[i] * score));
    strength += wrong;
    along += y[i] * wrong;
    for (std::size_t j = 0; j < s.p; ++j) {
      const double centred = x[i * s.p + j] - mean[j];
      gradient[j] += y[i] * wrong * centred;
      largest = std::max(largest, std::fabs(centred));
    }
  }
  double most = std::fabs(along) / strength;
  for (std::size_t j = 0; j < s.p; ++j) {
    // l2 n is 1.
    most = std::max(most, std::fabs(weight[j] - gradient[j]) / (largest * strength));
  }
  return most;
}

template <class T>
void check(const Shape& s) {
  const std::string name = std::to_string(s.n) + " x " + std::to_string(s.p) + " of " +
                           std::to_string(sizeof(T)) + " bytes";
  std::vector<T> x(s.problems * s.n * s.p);
  std::vector<float> y(s.problems * s.n);
  unsigned seed = 7;
  const auto number = [&] {
    seed = seed * 1664525u + 1013904223u;
    return static_cast<double>(seed >> 8) * 0x1p-23 - 1.0;
  };
  for (T& value : x) value = static_cast<T>(s.scale * number());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = i % s.n == 0 || number() > 0.2 ? 1.0f : -1.0f;
  for (std::size_t k = 0; k < s.problems; ++k) y[k * s.n + s.n - 1] = -1.0f;
  const Heads first = solved(*mmcl::targets()[0], s, x, y, 1);
  for (std::size_t k = 0; k < s.problems; ++k) {
    expect(first.converged[k] != 0, name + ": converged");
    const double far = excess(s, x.data() + k * s.n * s.p, y.data() + k * s.n,
                              first.weight.data() + k * s.p, first.bias[k]);
    expect(far <= 2e-10, name + ": gradient " + std::to_string(far * 1e10) + "e-10");
    expect(first.share[k] > 0.4 && first.share[k] <= 1.0, name + ": share");
  }
  for (const mmcl::Target* target : mmcl::targets()) {
    expect(solved(*target, s, x, y, 3) == first, name + ": the same bits, " + target->name);
  }
  if (s.problems < 2) return;
  x[s.n * s.p - 1] = std::numeric_limits<T>::quiet_NaN();
  const Heads spoilt = solved(*mmcl::targets()[0], s, x, y, 1);
  expect(std::isnan(spoilt.bias[0]) && std::isnan(spoilt.share[0]), name + ": not-a-number");
  expect(spoilt.converged[0] == 0 && spoilt.steps[0] == 0, name + ": not converged");
  expect(spoilt.bias[1] == first.bias[1], name + ": the neighbour of a not-a-number");
}

}  // namespace

int main() {
  const Shape shapes[] = {{3, 30, 17, 1.0},   {2, 8, 8, 10.0}, {2, 9, 7, 1e-3}, {3, 7, 9, 1.0},
                          {2, 24, 40, 100.0}, {1, 2, 1, 1.0},  {1, 2, 3, 1.0},  {2, 100, 50, 5.0},
                          {2, 33, 31, 1.0},   {2, 15, 14, 1e4}};
  for (const Shape& shape : shapes) {
    check<float>(shape);
    check<double>(shape);
  }
  std::printf("heads: %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

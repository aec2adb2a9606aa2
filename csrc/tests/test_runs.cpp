// Plain C++ test of inner products, training runs and embeddings, meant to run under the address
// and undefined-behaviour sanitizers: every buffer is exactly as large as it must be, and every
// target gives the same bits.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "../core/embed.h"
#include "../core/inner_products.h"
#include "../core/target.h"
#include "../core/trajectory.h"

namespace {

int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

// Values of both signs.
std::vector<float> values(std::size_t count, float scale, unsigned seed) {
  std::vector<float> out(count);
  for (float& x : out) {
    seed = seed * 1664525u + 1013904223u;
    x = scale * (static_cast<float>(seed >> 8) * 0x1p-23f - 1.0f);
  }
  return out;
}

struct Shape {
  std::size_t n, m, dims, positives;
  int q;
  bool multi;
};

struct Problem {
  Shape shape;
  std::size_t vectors;
  std::vector<float> gram[2], z[2], coefficients[2], loss, signal, noise;

  explicit Problem(const Shape& s) : shape(s), vectors(s.n + 1 + (s.multi ? 0 : s.n)) {}

  void train(const mmcl::Target& target, std::size_t epochs, bool update) {
    std::vector<mmcl::TrajectoryRun> runs(1);
    loss.assign(epochs, 77.0f);
    signal = noise = loss;
    runs[0].positives = shape.positives;
    runs[0].tau = 0.1f;
    runs[0].eta = 0.02f;
    for (int k = 0; k < (shape.multi ? 2 : 1); ++k) {
      runs[0].modalities[k] = {gram[k].data(), z[k].data(), coefficients[k].data()};
    }
    runs[0].loss = loss.data();
    runs[0].signal = signal.data();
    runs[0].noise = noise.data();
    mmcl::train_trajectories(target, {shape.n, shape.m, shape.q, shape.multi, epochs, update}, runs,
                             3);
  }
};

// Inner products of made-up vectors: columns, then neurons, against columns and, if not multi,
// views.
void project(const mmcl::Target& target, Problem& p) {
  const Shape& s = p.shape;
  for (int k = 0; k < (s.multi ? 2 : 1); ++k) {
    const auto rows = values((2 * s.n + 1) * s.dims, 0.5f, 11u + static_cast<unsigned>(k));
    const auto weights = values(s.m * s.dims, 0.1f, 5u + static_cast<unsigned>(k));
    p.gram[k].assign((s.n + 1) * p.vectors, 77.0f);
    p.z[k].assign(s.m * p.vectors, 77.0f);
    p.coefficients[k].assign(s.m * (s.n + 1), 0.0f);
    std::vector<const float*> left, right;
    std::vector<float*> out;
    for (std::size_t i = 0; i < p.vectors; ++i) right.push_back(rows.data() + i * s.dims);
    for (std::size_t i = 0; i <= s.n; ++i) left.push_back(right[i]);
    for (std::size_t i = 0; i < s.m; ++i) left.push_back(weights.data() + i * s.dims);
    for (std::size_t i = 0; i <= s.n; ++i) out.push_back(p.gram[k].data() + i * p.vectors);
    for (std::size_t i = 0; i < s.m; ++i) out.push_back(p.z[k].data() + i * p.vectors);
    mmcl::inner_products(
        target,
        {{left.data(), left.size(), right.data(), right.size(), s.n + 1, s.dims, out.data()}}, 2);
    double largest = 0;
    for (std::size_t i = 0; i < left.size(); ++i) {
      for (std::size_t j = 0; j < right.size(); ++j) {
        double exact = 0;
        for (std::size_t d = 0; d < s.dims; ++d) exact += double{left[i][d]} * right[j][d];
        largest = std::max(largest, std::fabs(exact - out[i][j]));
      }
    }
    expect(largest < 1e-4,
           std::string(target.name) + " inner products: " + std::to_string(largest));
  }
}

double power_relu(double z, int q) { return z > 0 ? std::pow(z, q) : 0.0; }

// The loss at the start, straight from (6) and (9).
double exact_loss(const Problem& p) {
  const Shape& s = p.shape;
  double total = 0;
  for (int direction = 0; direction < (s.multi ? 2 : 1); ++direction) {
    const auto &x = p.z[direction], &y = p.z[s.multi ? 1 - direction : 0];
    // Column of sample i's positive; the similarity of a query's and a key's columns.
    const std::size_t views = s.multi ? 0 : s.n + 1;
    const auto similarity = [&](std::size_t i, std::size_t j, std::size_t key) {
      double sum = 0;
      for (std::size_t r = 0; r < s.m; ++r) {
        const float* const a = x.data() + r * p.vectors;
        const float* const b = y.data() + r * p.vectors;
        const double yi = i < s.positives ? 1 : -1, yj = j < s.positives ? 1 : -1;
        sum += power_relu(a[i], s.q) * power_relu(b[key], s.q) +
               power_relu(yi * a[s.n], s.q) * power_relu(yj * b[s.n], s.q);
      }
      return sum / (static_cast<double>(s.m) * double{0.1f});
    };
    for (std::size_t i = 0; i < s.n; ++i) {
      double others = 0;
      const double positive = similarity(i, i, views + i);
      for (std::size_t j = 0; j < s.n; ++j) {
        if ((i < s.positives) != (j < s.positives))
          others += std::exp(similarity(i, j, j) - positive);
      }
      total += std::log1p(others);
    }
  }
  return total / static_cast<double>(s.n);
}

std::vector<float> embedded(const mmcl::Target& target, const Problem& p) {
  const Shape& s = p.shape;
  std::vector<float> labels(s.n, 1.0f), out(s.n * s.m);
  std::vector<std::int64_t> places(s.n);
  for (std::size_t i = 0; i < s.n; ++i) places[i] = static_cast<std::int64_t>(s.n - 1 - i);
  const mmcl::Embedding run{p.z[0].data(), nullptr,       nullptr,
                            labels.data(), places.data(), out.data()};
  mmcl::embed(target, {s.n, s.m, s.q, p.vectors, 0}, {run}, 2);
  const float* const row = p.z[0].data() + (s.m - 1) * p.vectors;
  const double last = power_relu(row[0], s.q) + power_relu(row[s.n], s.q);
  expect(std::fabs(out[s.n * s.m - 1] - last) <= 1e-5 * (1 + last), "embedding");
  return out;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

void check(const Shape& shape) {
  const std::string name = "n " + std::to_string(shape.n) + " m " + std::to_string(shape.m) +
                           " positives " + std::to_string(shape.positives) + " q " +
                           std::to_string(shape.q) + (shape.multi ? " multi" : "");
  std::vector<Problem> trained;
  std::vector<std::vector<float>> embeddings;
  for (const mmcl::Target* target : mmcl::targets()) {
    Problem p(shape);
    project(*target, p);
    const double exact = exact_loss(p);
    p.train(*target, 1, false);
    expect(std::fabs(p.loss[0] - exact) <= 1e-5 * exact, name + ": first loss");
    p.train(*target, 12, true);
    expect(std::isfinite(p.loss[11]), name + ": a finite loss");
    embeddings.push_back(embedded(*target, p));
    trained.push_back(p);
  }
  for (const Problem& p : trained) {
    bool equal = same(p.loss, trained[0].loss) && same(p.signal, trained[0].signal) &&
                 same(p.noise, trained[0].noise) && same(embeddings[0], embeddings.back());
    for (int k = 0; k < 2; ++k) {
      equal = equal && same(p.z[k], trained[0].z[k]) &&
              same(p.coefficients[k], trained[0].coefficients[k]);
    }
    expect(equal, name + ": the same bits on every target");
  }
}

}  // namespace

int main() {
  const Shape shapes[] = {
      {7, 3, 5, 4, 1, false},      {7, 3, 5, 4, 1, true},      {33, 17, 40, 16, 2, false},
      {33, 17, 1030, 31, 3, true}, {64, 16, 16, 32, 1, false}, {101, 5, 30, 3, 1, true},
      {16, 16, 16, 0, 1, false},   {16, 16, 16, 16, 2, true},  {1, 1, 1, 1, 1, false},
  };
  for (const Shape& shape : shapes) check(shape);
  std::printf("runs: %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

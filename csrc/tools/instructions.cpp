// Does a piece of work of csrc/core a number of times, for csrc/tools/count_instructions.sh.
//
//   instructions TARGET WORK REPETITIONS
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../core/fill.h"
#include "../core/inner_products.h"
#include "../core/softmax.h"
#include "../core/trajectory.h"

namespace {

using mmcl::Target;

// Numbers of both signs.
std::vector<float> values(std::size_t count, float scale, std::uint32_t seed) {
  std::vector<float> out(count);
  for (float& x : out) {
    seed = seed * 1664525u + 1013904223u;
    x = scale * (static_cast<float>(seed >> 8) * 0x1p-23f - 1.0f);
  }
  return out;
}

template <class T>
void normals(const Target& target, std::size_t repetitions) {
  std::vector<T> out(100 * 256);
  for (std::size_t i = 0; i < repetitions; ++i) {
    mmcl::fill_normal<T>(target, {1, 1, 0}, {out.data(), {}, {1, 1, out.size()}, 0, 0}, 1.0, 1);
  }
}

void words(const Target& target, std::size_t repetitions) {
  std::vector<std::uint32_t> out(100 * 256);
  for (std::size_t i = 0; i < repetitions; ++i) {
    mmcl::fill_words(target, {1, 1, 0}, {out.data(), {}, {1, 1, out.size()}, 0, 0}, 1);
  }
}

void softmax(const Target& target, std::size_t repetitions) {
  constexpr std::size_t kRows = 64, kColumns = 400;
  const auto scores = values(kRows * kColumns, 10.0f, 1);
  std::vector<float> max(kRows), sum(kRows);
  for (std::size_t i = 0; i < repetitions; ++i) {
    mmcl::softmax_rows(target, {scores.data(), kRows, kColumns, kColumns}, {nullptr, 0, 0, 0},
                       {max.data(), sum.data()}, 1);
  }
}

// Epochs of the paper's size, on two modalities.
void train(const Target& target, std::size_t epochs) {
  constexpr std::size_t kSamples = 100, kNeurons = 50, kVectors = kSamples + 1, kDims = 64;
  std::vector<float> gram[2], z[2], coefficients[2];
  std::vector<float> loss(epochs), signal(epochs), noise(epochs);
  std::vector<mmcl::TrajectoryRun> runs(1);
  for (std::uint32_t k = 0; k < 2; ++k) {
    const auto x = values(kVectors * kDims, 0.3f, 3 + k);
    gram[k].resize(kVectors * kVectors);
    std::vector<const float*> rows;
    std::vector<float*> out;
    for (std::size_t i = 0; i < kVectors; ++i) {
      rows.push_back(x.data() + i * kDims);
      out.push_back(gram[k].data() + i * kVectors);
    }
    mmcl::inner_products(
        target, {{rows.data(), kVectors, rows.data(), kVectors, kVectors, kDims, out.data()}}, 1);
    z[k] = values(kNeurons * kVectors, 0.1f, 7 + k);
    coefficients[k].resize(kNeurons * kVectors);
    runs[0].modalities[k] = {gram[k].data(), z[k].data(), coefficients[k].data()};
  }
  runs[0].positives = kSamples / 2;
  runs[0].tau = 0.1f;
  runs[0].eta = 0.001f;
  runs[0].loss = loss.data();
  runs[0].signal = signal.data();
  runs[0].noise = noise.data();
  mmcl::train_trajectories(target, {kSamples, kNeurons, 1, true, epochs, true}, runs, 1);
}

void inner_products(const Target& target, std::size_t repetitions) {
  constexpr std::size_t kRows = 100, kDims = 2000;
  const auto x = values(kRows * kDims, 0.3f, 1);
  std::vector<float> products(kRows * kRows);
  std::vector<const float*> rows;
  std::vector<float*> out;
  for (std::size_t i = 0; i < kRows; ++i) {
    rows.push_back(x.data() + i * kDims);
    out.push_back(products.data() + i * kRows);
  }
  for (std::size_t i = 0; i < repetitions; ++i) {
    mmcl::inner_products(target,
                         {{rows.data(), kRows, rows.data(), kRows, kRows, kDims, out.data()}}, 1);
  }
}

void heads(const Target& target, std::size_t repetitions) {
  constexpr std::size_t kSamples = 100, kFeatures = 50;
  const auto features = values(kSamples * kFeatures, 1.0f, 9);
  std::vector<float> labels(kSamples);
  for (std::size_t i = 0; i < kSamples; ++i) labels[i] = i % 2 == 1 ? 1.0f : -1.0f;
  double weight[kFeatures], bias;
  bool converged;
  std::int64_t steps;
  const mmcl::HeadBatch<float> batch{1,     features.data(), labels.data(), weight,
                                     &bias, &converged,      &steps,        nullptr};
  for (std::size_t i = 0; i < repetitions; ++i) {
    mmcl::fit_heads(target, {kSamples, kFeatures, 0.01, 1e-10, 200}, batch, 1);
  }
}

const std::map<std::string, std::function<void(const Target&, std::size_t)>> kWork{
    {"normals", normals<float>},
    {"normals_bf16", normals<std::uint16_t>},
    {"words", words},
    {"softmax", softmax},
    {"train", train},
    {"inner_products", inner_products},
    {"heads", heads}};

}  // namespace

int main(int count, char** arguments) {
  if (count != 4 || kWork.count(arguments[2]) == 0) {
    std::fprintf(stderr, "usage: instructions TARGET WORK REPETITIONS\n");
    for (const auto& [name, work] : kWork) std::fprintf(stderr, "  %s\n", name.c_str());
    return 2;
  }
  kWork.at(arguments[2])(mmcl::find_target(arguments[1]), std::strtoull(arguments[3], nullptr, 10));
  return 0;
}

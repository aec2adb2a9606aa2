// Hashes of the results of every entry point of csrc/core against recorded ones, which are of every
// machine and target. Other tests compare the targets of a machine with one another, and see no
// change that all of them share, such as products and sums that the compiler fuses.
//
//   test_golden        compare with csrc/tests/golden.txt, on every target of this machine
//   test_golden print  print such a file of the results of this machine
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "../core/chi.h"
#include "../core/embed.h"
#include "../core/fill.h"
#include "../core/gram.h"
#include "../core/head.h"
#include "../core/inner_products.h"
#include "../core/rows.h"
#include "../core/softmax.h"
#include "../core/trajectory.h"
#include "contrast_cases.h"
#include "variant_cases.h"

namespace {

using mmcl::Matrix;
using mmcl::Target;

constexpr int kThreads = 2;

// The hash of a sequence of numbers, each added with its place. Every not-a-number counts as one:
// x86-64 and ARM64 make other bits of infinity - infinity.
class Hash {
 public:
  template <class T>
  Hash& add(const T* values, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const T value = values[i] == values[i] ? values[i] : std::numeric_limits<T>::quiet_NaN();
      std::uint64_t bits = 0;
      std::memcpy(&bits, &value, sizeof value);
      sum_ += mixed(bits + ++place_ * 0x9e3779b97f4a7c15u);
    }
    return *this;
  }
  template <class T>
  Hash& add(const std::vector<T>& values) {
    return add(values.data(), values.size());
  }
  std::uint64_t value() const { return sum_; }

 private:
  // The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
  static std::uint64_t mixed(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  std::uint64_t sum_ = 0, place_ = 0;
};

// The recorded hashes by name; a name is "target entry" where targets differ, else "entry".
class Golden {
 public:
  explicit Golden(const char* path) {
    std::ifstream file(path);
    std::string hash, name;
    while (file >> hash && std::getline(file >> std::ws, name)) recorded_[name] = hash;
  }
  void check(const std::string& name, const std::string& target, const Hash& hash) {
    char found[17];
    std::snprintf(found, sizeof found, "%016llx", static_cast<unsigned long long>(hash.value()));
    const auto [printed, first] = found_.emplace(name, found);
    if (first) order_.push_back(name);
    const auto expected = recorded_.find(name);
    if (expected != recorded_.end() && expected->second == found && printed->second == found) {
      return;
    }
    std::fprintf(stderr, "FAILED: %s on %s: %s, expected %s\n", name.c_str(), target.c_str(), found,
                 expected == recorded_.end() ? "no such name" : expected->second.c_str());
    ++failures_;
  }
  void print() const {
    for (const auto& name : order_) {
      std::printf("%s %s\n", found_.at(name).c_str(), name.c_str());
    }
  }
  int failures() const { return failures_; }
  std::size_t checked() const { return found_.size(); }

 private:
  std::map<std::string, std::string> recorded_, found_;
  std::vector<std::string> order_;
  int failures_ = 0;
};

std::vector<float> values(std::size_t count, float scale, std::uint32_t seed) {
  auto out = mmcl::tests::spread(count, seed);
  for (float& x : out) x *= 0.5f * scale;
  return out;
}

template <class T>
Matrix<T> matrix(T* data, std::size_t rows, std::size_t columns) {
  return {data, rows, columns, static_cast<std::ptrdiff_t>(columns)};
}

// Parts of tiles, dimensions past 2^14, several seeds and scales.
template <class T>
Hash normals(const Target& target) {
  constexpr std::uint64_t kRuns = 3, kSamples = 5, kDims = 9000;
  std::vector<T> out(kRuns * kSamples * kDims);
  const mmcl::Slice<T> slice{
      out.data(), {1, 2, 300}, {kRuns, kSamples, kDims}, kSamples * kDims, kDims};
  Hash hash;
  mmcl::fill_normal<T>(target, {0x123456789abcdef, 7, 77}, slice, 0.37, kThreads);
  hash.add(out);
  const std::uint64_t seeds[kRuns] = {1, 2, 0xffffffffffff};
  const double scales[kRuns] = {1.0, 0.1, 3.0};
  mmcl::fill_normal<T>(target, {0, 7, 77},
                       {out.data(), {}, slice.shape, slice.run_stride, slice.sample_stride},
                       mmcl::PerRun{seeds, scales}, kThreads);
  return hash.add(out);
}

Hash words(const Target& target) {
  std::vector<std::uint32_t> out(3 * 5 * 9000);
  mmcl::fill_words(target, {5, 7, 77}, {out.data(), {1, 2, 300}, {3, 5, 9000}, 45000, 9000},
                   kThreads);
  return Hash().add(out);
}

Hash gram(const Target& target) {
  std::vector<double> out(40 * 40);
  mmcl::streaming_gram(target, {5, 6, 7}, {1, 2, 3}, 40, 5000, 0.5, kThreads, out.data());
  return Hash().add(out);
}

// Passes over scores, which with `odd` hold not-a-number, infinities, masked and subnormal ones.
void softmax(Golden& golden, const Target& target, bool odd) {
  constexpr std::size_t kRows = 67, kColumns = 1500;
  auto scores = values(kRows * kColumns, 40.0f, 3);
  if (odd) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    scores[5] = std::numeric_limits<float>::quiet_NaN();
    scores[kColumns + 7] = kInfinity;
    scores[2 * kColumns + 9] = -kInfinity;
    std::fill_n(scores.begin() + 3 * kColumns, kColumns, mmcl::kMasked);
    scores[4 * kColumns + 1] = 1e-42f;
  }
  const auto check = [&](const char* name, const Hash& hash) {
    golden.check(std::string(name) + (odd ? ", odd scores" : ""), target.name, hash);
  };
  std::vector<float> terms(scores.size()), max(kRows, -5.0f), sum(kRows),
      column_max(kColumns, -5.0f), column_sum(kColumns);
  const auto from = matrix<const float>(scores.data(), kRows, kColumns);
  const auto to = matrix(terms.data(), kRows, kColumns);
  mmcl::softmax_rows(target, from, to, {max.data(), sum.data()}, kThreads);
  check("softmax_rows", Hash().add(terms).add(max).add(sum));
  mmcl::softmax_columns(target, from, to, {column_max.data(), column_sum.data()}, kThreads);
  check("softmax_columns", Hash().add(terms).add(column_max).add(column_sum));
  std::fill(max.begin(), max.end(), -5.0f);
  std::fill(column_max.begin(), column_max.end(), -5.0f);
  mmcl::softmax_both(target, from, {max.data(), sum.data()}, {column_max.data(), column_sum.data()},
                     kThreads);
  check("softmax_both", Hash().add(max).add(sum).add(column_max).add(column_sum));
  const mmcl::MaxScale columns{column_max.data(), column_sum.data()};
  Hash weights;
  for (const mmcl::MaxScale* const second :
       {&columns, static_cast<const mmcl::MaxScale*>(nullptr)}) {
    auto in_place = scores;
    mmcl::softmax_weights(target, matrix(in_place.data(), kRows, kColumns),
                          {max.data(), sum.data()}, second, kThreads);
    weights.add(in_place);
  }
  check("softmax_weights", weights);
  auto in_place = scores;
  mmcl::softplus_rows(target, matrix(in_place.data(), kRows, kColumns), sum.data(), kThreads);
  check("softplus_rows", Hash().add(in_place).add(sum));
}

void rows(Golden& golden, const Target& target) {
  constexpr std::size_t kRows = 3, kFeatures = 1030;
  const auto x = values(kRows * kFeatures, 2.0f, 8);
  auto gradient = values(kRows * kFeatures, 2.0f, 9);
  std::vector<float> unit(x.size()), norm(kRows), products(kRows);
  const auto from = matrix(x.data(), kRows, kFeatures);
  mmcl::row_products(target, from, matrix<const float>(gradient.data(), kRows, kFeatures),
                     products.data());
  golden.check("row_products", target.name, Hash().add(products));
  mmcl::unit_rows(target, from, matrix(unit.data(), kRows, kFeatures), norm.data());
  golden.check("unit_rows", target.name, Hash().add(unit).add(norm));
  mmcl::unit_rows_gradient(target, matrix<const float>(unit.data(), kRows, kFeatures), norm.data(),
                           matrix(gradient.data(), kRows, kFeatures));
  golden.check("unit_rows_gradient", target.name, Hash().add(gradient));
}

void contrast(Golden& golden, const Target& target) {
  constexpr std::size_t kRows = 70;
  for (const auto& setting : mmcl::tests::kSettings) {
    const std::size_t columns =
        setting.symmetric || setting.same_rows ? kRows : kRows + setting.extra + 5;
    Hash hash;
    const auto products = mmcl::tests::spread(kRows * columns, 2);
    for (const auto& result : mmcl::tests::evaluate(target, setting, kRows, columns, products)) {
      hash.add(result);
    }
    golden.check(std::string("contrast: ") + setting.name, target.name, hash);
  }
}

// Products of made-up vectors, embeddings from them, then training.
struct Training {
  static constexpr std::size_t kSamples = 57, kNeurons = 19, kDims = 1030, kEpochs = 40;
  bool multi;
  int q;
  std::size_t vectors = kSamples + 1 + (multi ? 0 : kSamples);
  std::vector<float> gram[2], z[2], coefficients[2];

  Training(const Target& target, bool on_two_modalities, int power)
      : multi(on_two_modalities), q(power) {
    for (std::uint32_t k = 0; k < (multi ? 2u : 1u); ++k) {
      const auto rows = values((2 * kSamples + 1) * kDims, 0.5f, 11 + k);
      const auto weights = values(kNeurons * kDims, 0.1f, 5 + k);
      gram[k].resize((kSamples + 1) * vectors);
      z[k].resize(kNeurons * vectors);
      coefficients[k].resize(kNeurons * (kSamples + 1));
      std::vector<const float*> left, right;
      std::vector<float*> out;
      for (std::size_t i = 0; i < vectors; ++i) right.push_back(rows.data() + i * kDims);
      left.assign(right.begin(), right.begin() + kSamples + 1);
      for (std::size_t i = 0; i < kNeurons; ++i) left.push_back(weights.data() + i * kDims);
      for (std::size_t i = 0; i <= kSamples; ++i) out.push_back(gram[k].data() + i * vectors);
      for (std::size_t i = 0; i < kNeurons; ++i) out.push_back(z[k].data() + i * vectors);
      mmcl::inner_products(
          target,
          {{left.data(), left.size(), right.data(), right.size(), kSamples + 1, kDims, out.data()}},
          kThreads);
    }
  }

  Hash embeddings(const Target& target) const {
    constexpr std::size_t kColumns = 9;
    std::vector<float> labels(kSamples, 1.0f), out(kSamples * kNeurons);
    for (std::size_t i = 0; i < kSamples; i += 3) labels[i] = -1.0f;
    mmcl::Embedding run{z[0].data(), nullptr, nullptr, labels.data(), nullptr, out.data()};
    mmcl::embed(target, {kSamples, kNeurons, q, vectors, 0}, {run}, kThreads);
    Hash hash;
    hash.add(out);
    const auto moved = values(kNeurons * kColumns, 0.3f, 1);
    const auto products = values(kColumns * (kSamples + 1), 0.4f, 2);
    run.coefficients = moved.data();
    run.gram = products.data();
    mmcl::embed(target, {kSamples, kNeurons, q, vectors, kColumns}, {run}, kThreads);
    return hash.add(out);
  }

  Hash trained(const Target& target, float tau, float eta) {
    std::vector<float> loss(kEpochs), signal(kEpochs), noise(kEpochs);
    std::vector<mmcl::TrajectoryRun> runs(1);
    runs[0].positives = 25;
    runs[0].tau = tau;
    runs[0].eta = eta;
    runs[0].loss = loss.data();
    runs[0].signal = signal.data();
    runs[0].noise = noise.data();
    for (int k = 0; k < (multi ? 2 : 1); ++k) {
      runs[0].modalities[k] = {gram[k].data(), z[k].data(), coefficients[k].data()};
    }
    mmcl::train_trajectories(target, {kSamples, kNeurons, q, multi, kEpochs, true}, runs, kThreads);
    Hash hash;
    hash.add(loss).add(signal).add(noise);
    for (int k = 0; k < (multi ? 2 : 1); ++k) hash.add(z[k]).add(coefficients[k]);
    return hash;
  }
};

void training(Golden& golden, const Target& target) {
  struct Case {
    const char* name;
    bool multi;
    int q;
    float tau, eta;
  };
  constexpr Case kCases[] = {{"single, q = 1", false, 1, 0.1f, 0.02f},
                             {"multi, q = 2", true, 2, 0.1f, 0.02f},
                             {"multi, q = 3", true, 3, 0.1f, 0.02f},
                             {"diverging", true, 3, 0.002f, 50.0f}};
  for (const Case& c : kCases) {
    Training run(target, c.multi, c.q);
    const std::string name = c.name;
    golden.check("inner_products: " + name, target.name,
                 Hash().add(run.gram[0]).add(run.z[0]).add(run.gram[1]).add(run.z[1]));
    golden.check("embed: " + name, target.name, run.embeddings(target));
    golden.check("train_trajectories: " + name, target.name, run.trained(target, c.tau, c.eta));
  }
}

void variants(Golden& golden, const Target& target) {
  struct Case {
    const char* name;
    std::size_t modalities;
    bool logistic, all_negatives, key_gradients, cosine, learned_tau, orthogonal;
    int q;
  };
  constexpr Case kCases[] = {
      {"inner, q = 1", 1, false, false, false, false, false, false, 1},
      {"multi, keys, tau, q = 2", 2, false, true, true, false, true, false, 2},
      {"cosine, keys, orthogonal", 1, false, true, true, true, true, true, 1},
      {"multi, cosine", 2, false, false, false, true, false, false, 3},
      {"three modalities", 3, false, false, false, false, false, false, 1},
      {"three modalities, cosine, keys, tau", 3, false, false, true, true, true, false, 2},
      {"logistic", 1, true, false, false, false, false, false, 2},
  };
  for (const Case& c : kCases) {
    mmcl::VariantSettings s{};
    s.n = 37;
    s.m = 11;
    s.q = c.q;
    s.modalities = c.modalities;
    s.logistic = c.logistic;
    s.all_negatives = c.all_negatives;
    s.key_gradients = c.key_gradients;
    s.cosine = c.cosine;
    s.learned_tau = c.learned_tau;
    s.axes = 3;
    s.class_axes = s.patches = 2;
    s.update = true;
    mmcl::tests::VariantProblem run(s, 4, c.orthogonal);
    run.train(target, 12, [] { return true; });
    Hash hash;
    hash.add(run.loss).add(run.signal).add(run.noise).add(run.tau);
    for (int k = 0; k < 3; ++k) hash.add(run.z[k]).add(run.coefficients[k]);
    golden.check(std::string("train_variants: ") + c.name, target.name,
                 hash.add(&run.log_inverse_tau, 1));
  }
}

// Fits and their accuracies: more samples than features, and fewer.
template <class T>
void heads(Golden& golden, const Target& target, std::size_t n, std::size_t p, const char* name) {
  constexpr std::size_t kProblems = 3;
  const auto drawn = values(kProblems * n * p, 1.0f, 9);
  const std::vector<T> features(drawn.begin(), drawn.end());
  std::vector<float> labels(kProblems * n);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    labels[i] = i % n == 0 || (i % n != n - 1 && drawn[i] > 0.2f) ? 1.0f : -1.0f;
  }
  std::vector<double> weight(kProblems * p), bias(kProblems), share(kProblems);
  std::vector<std::int64_t> steps(kProblems);
  bool converged[kProblems];
  const mmcl::HeadBatch<T> batch{kProblems,   features.data(), labels.data(), weight.data(),
                                 bias.data(), converged,       steps.data(),  share.data()};
  mmcl::fit_heads(target, {n, p, 1.0 / static_cast<double>(n), 1e-10, 200}, batch, kThreads);
  golden.check(std::string("fit_heads: ") + name, target.name,
               Hash().add(weight).add(bias).add(steps).add(converged, kProblems));
  mmcl::score_heads(target, n, p, batch, kThreads);
  golden.check(std::string("score_heads: ") + name, target.name, Hash().add(share));
}

Hash chi() {
  constexpr std::size_t kRows = 20000;
  std::vector<double> degrees(2 * kRows), out(2 * kRows);
  for (std::size_t i = 0; i < degrees.size(); ++i) {
    degrees[i] = 1.0 + static_cast<double>(i % 97) * (i % 11 == 0 ? 1e3 : 0.37);
  }
  mmcl::chi({3, 4}, 9, 0, degrees.data(), kRows, out.data(), kThreads);
  return Hash().add(out);
}

}  // namespace

int main(int count, char**) {
  Golden golden("csrc/tests/golden.txt");
  for (const Target* const at : mmcl::targets()) {
    const Target& target = *at;
    golden.check("fill_normal float32", target.name, normals<float>(target));
    golden.check("fill_normal float64", target.name, normals<double>(target));
    golden.check("fill_normal bfloat16", target.name, normals<std::uint16_t>(target));
    golden.check("fill_words", target.name, words(target));
    for (const bool odd : {false, true}) softmax(golden, target, odd);
    rows(golden, target);
    contrast(golden, target);
    training(golden, target);
    variants(golden, target);
    heads<float>(golden, target, 50, 20, "float32, 50 x 20");
    heads<double>(golden, target, 20, 50, "float64, 20 x 50");
    heads<double>(golden, target, 60, 31, "float64, 60 x 31");
    // The number of its partial sums is that of the target's lanes.
    golden.check("streaming_gram " + std::string(target.name), target.name, gram(target));
  }
  golden.check("chi", "every target", chi());
  if (count > 1) {
    golden.print();
    return 0;
  }
  std::printf("golden: %zu hashes on %zu targets, %d failures\n", golden.checked(),
              mmcl::targets().size(), golden.failures());
  return golden.failures() == 0 ? 0 : 1;
}

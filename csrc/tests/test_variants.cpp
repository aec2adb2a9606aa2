// Plain C++ test of training runs of model variants, meant to run under the address and
// undefined-behaviour sanitizers: every buffer is exactly as large as it must be, and every target
// gives the same bits.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../core/target.h"
#include "../core/variant.h"

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

struct Problem {
  mmcl::VariantSettings s;
  std::size_t codes;
  bool orthogonal;
  std::vector<float> products[2], squares[2], with_view[2], z[2], coefficients[2];
  std::vector<std::int32_t> partner, axis, own, paired;
  std::vector<float> sign, labels, targets, loss, signal, noise, tau;
  double log_inverse_tau = 1.0;

  Problem(const mmcl::VariantSettings& settings, std::size_t code_count, bool is_orthogonal)
      : s(settings), codes(code_count), orthogonal(is_orthogonal) {
    const mmcl::VariantSizes sizes = mmcl::sizes_of(s);
    for (unsigned k = 0; k < (s.multi ? 2u : 1u); ++k) {
      products[k] = values(sizes.columns * sizes.vectors, 0.3f, 3 + k);
      squares[k] = values(sizes.vectors, 1.0f, 5 + k);
      with_view[k] = values(s.n, 1.0f, 7 + k);
      z[k] = values(s.m * sizes.vectors, 0.3f, 9 + k);
      coefficients[k].assign(s.m * sizes.columns, 0.0f);
    }
    for (std::size_t c = 0; c < s.patches * codes; ++c) {
      axis.push_back(static_cast<std::int32_t>(c % s.axes));
      sign.push_back(c % 3 == 0 ? 1.0f : -1.0f);
    }
    for (std::size_t i = 0; i < s.n; ++i) {
      partner.push_back(static_cast<std::int32_t>((i + 1) % s.n));
      own.push_back(static_cast<std::int32_t>(i * codes / s.n));
      paired.push_back(static_cast<std::int32_t>((i + 1) % codes));
      labels.push_back(static_cast<float>(own.back()));
      targets.push_back(i % 2 == 0 ? 1.0f : -1.0f);
    }
  }

  void train(const mmcl::Target& target, std::size_t epochs, const std::function<bool()>& go_on) {
    s.epochs = epochs;
    loss.assign(epochs, 77.0f);
    signal = noise = loss;
    tau.assign(s.learned_tau ? epochs : 0, 77.0f);
    std::vector<mmcl::VariantRun> runs(1);
    mmcl::VariantRun& run = runs[0];
    run.codes = {codes, codes, axis.data(), sign.data(), own.data(), paired.data()};
    run.labels = run.paired_labels = labels.data();
    run.targets = s.logistic ? targets.data() : nullptr;
    run.tau = run.eta = 0.1f;
    run.eta_tau = 0.01f;
    run.log_inverse_tau = s.learned_tau ? &log_inverse_tau : nullptr;
    for (int k = 0; k < (s.multi ? 2 : 1); ++k) {
      mmcl::VariantProducts given{};
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
    mmcl::train_variants(target, s, runs, 2, go_on);
  }
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

void check(const std::string& name, const mmcl::VariantSettings& settings, std::size_t codes,
           bool orthogonal) {
  std::vector<Problem> trained;
  for (const mmcl::Target* target : mmcl::targets()) {
    trained.emplace_back(settings, codes, orthogonal);
    trained.back().train(*target, 5, [] { return true; });
    expect(std::isfinite(trained.back().loss[4]), name + ": a finite loss");
  }
  const Problem& first = trained[0];
  for (const Problem& p : trained) {
    bool equal = same(p.loss, first.loss) && same(p.signal, first.signal) &&
                 same(p.noise, first.noise) && same(p.tau, first.tau);
    for (int k = 0; k < 2; ++k) {
      equal = equal && same(p.z[k], first.z[k]) && same(p.coefficients[k], first.coefficients[k]);
    }
    expect(equal && p.log_inverse_tau == first.log_inverse_tau,
           name + ": the same bits on every target");
  }
}

void check_end(const mmcl::VariantSettings& settings) {
  for (const mmcl::Target* target : mmcl::targets()) {
    Problem p(settings, 2, false);
    int left = 3;
    p.train(*target, 100, [&] { return left-- > 0; });
    expect(p.loss[2] != 77.0f && p.loss[3] == 77.0f, "a call ends when it is told to");
  }
}

void check_refusals(const mmcl::VariantSettings& settings) {
  const auto refuses = [&](const char* what, const std::function<void(Problem&)>& spoil) {
    Problem p(settings, 2, true);
    spoil(p);
    try {
      p.train(*mmcl::targets()[0], 2, [] { return true; });
    } catch (const std::invalid_argument& error) {
      expect(std::strncmp(error.what(), what, std::strlen(what)) == 0, error.what());
      return;
    }
    expect(false, std::string("not refused: ") + what);
  };
  refuses("patches: expected 1 or 2", [](Problem& p) { p.s.patches = 3; });
  refuses("class_axes: expected 1 .. axes", [](Problem& p) { p.s.class_axes = 9; });
  refuses("logistic: expected without", [](Problem& p) { p.s.logistic = p.s.cosine = true; });
  refuses("axis: expected 0 .. axes - 1", [](Problem& p) { p.axis[0] = 9; });
  refuses("code: expected 0 .. codes - 1", [](Problem& p) { p.paired[0] = -1; });
  refuses("partner: expected a permutation", [](Problem& p) { p.partner[0] = p.partner[1]; });
}

}  // namespace

int main() {
  mmcl::VariantSettings s{};
  s.axes = s.class_axes = 1;
  s.patches = 1;
  s.update = true;
  s.q = 1;
  for (const std::size_t n : {1u, 7u, 16u, 33u, 50u}) {
    for (int option = 0; option < 64; ++option) {
      if (option % 5 != static_cast<int>(n % 5)) continue;  // a fifth of them for each n
      s.n = n;
      s.m = 1 + n % 19;
      s.multi = (option & 1) != 0;
      s.key_gradients = (option & 2) != 0;
      s.cosine = (option & 4) != 0;
      s.learned_tau = (option & 8) != 0;
      s.all_negatives = (option & 16) != 0;
      const std::size_t codes = n < 4 ? 1 : 4;
      s.patches = n < 4 ? 1 : 2;
      s.axes = n < 4 ? 1 : 3;
      check("n " + std::to_string(n) + " option " + std::to_string(option), s, codes,
            (option & 32) != 0);
    }
  }
  s.multi = s.key_gradients = s.cosine = s.learned_tau = false;
  check_end(s);
  check_refusals(s);
  s.logistic = true;
  for (const bool orthogonal : {false, true}) check("logistic", s, 4, orthogonal);
  std::printf("variants: %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

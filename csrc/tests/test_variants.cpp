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
#include "variant_cases.h"

namespace {

using Problem = mmcl::tests::VariantProblem;

int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

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
    for (int k = 0; k < 3; ++k) {
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
  refuses("modalities: expected 1 .. 3", [](Problem& p) { p.s.modalities = 4; });
  refuses("patches: expected 1 or 2", [](Problem& p) { p.s.patches = 3; });
  refuses("class_axes: expected 1 .. axes", [](Problem& p) { p.s.class_axes = 9; });
  refuses("logistic: expected without", [](Problem& p) { p.s.logistic = p.s.cosine = true; });
  refuses("axis: expected 0 .. axes - 1", [](Problem& p) { p.axis[0] = 9; });
  refuses("code: expected 0 .. codes - 1", [](Problem& p) { p.code[1][0] = -1; });
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
    for (int option = 0; option < 96; ++option) {
      if (option % 5 != static_cast<int>(n % 5)) continue;  // a fifth of them for each n
      s.n = n;
      s.m = 1 + n % 19;
      s.modalities = 1 + static_cast<std::size_t>(option / 32);
      s.key_gradients = (option & 1) != 0;
      s.cosine = (option & 2) != 0;
      s.learned_tau = (option & 4) != 0;
      s.all_negatives = (option & 8) != 0;
      const std::size_t codes = n < 4 ? 1 : 4;
      s.patches = n < 4 ? 1 : 2;
      s.axes = n < 4 ? 1 : 3;
      check("n " + std::to_string(n) + " option " + std::to_string(option), s, codes,
            (option & 16) != 0);
    }
  }
  s.modalities = 1;
  s.key_gradients = s.cosine = s.learned_tau = false;
  check_end(s);
  check_refusals(s);
  s.logistic = true;
  for (const bool orthogonal : {false, true}) check("logistic", s, 4, orthogonal);
  std::printf("variants: %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

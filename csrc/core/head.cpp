#include "head.h"

#include <algorithm>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "default_floats.h"
#include "head_workspace.h"
#include "parallel.h"
#include "target.h"

namespace mmcl {
namespace {

struct alignas(64) Line {
  double values[kDoubles];
};

std::uint64_t parts_for(std::size_t problems, int threads) {
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
  return std::min<std::uint64_t>(problems, static_cast<std::uint64_t>(threads));
}

template <class T, class Narrow, class Wide>
auto pick(Narrow narrow, Wide wide) {
  if constexpr (std::is_same_v<T, float>) {
    return narrow;
  } else {
    return wide;
  }
}

}  // namespace

template <class T>
void fit_heads(const Target& target, const HeadSettings& s, const HeadBatch<T>& batch,
               int threads) {
  if (s.n < 1 || s.p < 1) throw std::invalid_argument("features: expected n, p of at least 1");
  const auto fit = pick<T>(target.head.fit_narrow, target.head.fit_wide);
  const std::uint64_t parts = parts_for(batch.problems, threads);
  // All memory before the first thread: a failed allocation is then an ordinary exception.
  std::vector<std::vector<Line>> memory(parts);
  for (auto& block : memory) block.resize(head_doubles(s) / kDoubles);
  for_each_item(parts, batch.problems, [&](std::uint64_t part, std::size_t k) {
    const DefaultFloats environment;
    fit(s,
        {batch.features + k * s.n * s.p, batch.labels + k * s.n, batch.weight + k * s.p,
         batch.bias + k, batch.converged + k, batch.steps + k},
        memory[part][0].values);
  });
}

template <class T>
void score_heads(const Target& target, std::size_t n, std::size_t p, const HeadBatch<T>& batch,
                 int threads) {
  if (n < 1 || p < 1) throw std::invalid_argument("features: expected n, p of at least 1");
  const auto score = pick<T>(target.head.score_narrow, target.head.score_wide);
  const std::uint64_t parts = parts_for(batch.problems, threads);
  for_each_item(parts, batch.problems, [&](std::uint64_t, std::size_t k) {
    const DefaultFloats environment;
    score(n, p,
          {batch.features + k * n * p, batch.labels + k * n, batch.weight + k * p, batch.bias[k],
           batch.share + k});
  });
}

template void fit_heads(const Target&, const HeadSettings&, const HeadBatch<float>&, int);
template void fit_heads(const Target&, const HeadSettings&, const HeadBatch<double>&, int);
template void score_heads(const Target&, std::size_t, std::size_t, const HeadBatch<float>&, int);
template void score_heads(const Target&, std::size_t, std::size_t, const HeadBatch<double>&, int);

}  // namespace mmcl

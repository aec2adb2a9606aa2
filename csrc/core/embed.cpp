#include "embed.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "default_floats.h"
#include "embed_workspace.h"
#include "parallel.h"
#include "target.h"

namespace mmcl {

void check_power(int q) {
  if (q >= 1 && q <= kHighestPower) return;
  throw std::invalid_argument("q: expected 1 .. " + std::to_string(kHighestPower) + ", got " +
                              std::to_string(q));
}

void embed(const Target& target, const EmbedShape& shape, const std::vector<Embedding>& runs,
           int threads) {
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
  if (shape.m < 1) throw std::invalid_argument("m: expected at least 1");
  check_power(shape.q);
  const auto parts = std::min<std::uint64_t>(runs.size(), static_cast<std::uint64_t>(threads));
  // All memory before the first thread: a failed allocation is then an ordinary exception.
  std::vector<std::vector<float>> memory(parts);
  for (auto& block : memory) block.resize(embed_floats(shape));
  for_each_item(parts, runs.size(), [&](std::uint64_t part, std::size_t k) {
    const DefaultFloats environment;
    target.embed(shape, runs[k], memory[part].data());
  });
}

}  // namespace mmcl

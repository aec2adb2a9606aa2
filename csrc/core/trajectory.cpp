#include "trajectory.h"

#include <algorithm>
#include <stdexcept>

#include "default_floats.h"
#include "embed.h"
#include "parallel.h"
#include "target.h"
#include "trajectory_workspace.h"

namespace mmcl {
namespace {

struct alignas(64) Line {
  float values[kUnit];
};

void check(const TrajectorySettings& s, const std::vector<TrajectoryRun>& runs, int threads) {
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
  if (s.n < 1 || s.m < 1) throw std::invalid_argument("n, m: expected at least 1");
  if (s.n > 1u << 30) throw std::invalid_argument("n: expected at most 2^30");
  check_power(s.q);
  if (!s.update && s.epochs != 1) throw std::invalid_argument("epochs: expected 1 without updates");
  for (const TrajectoryRun& run : runs) {
    if (run.positives > s.n) throw std::invalid_argument("positives: expected at most n");
  }
}

}  // namespace

void train_trajectories(const Target& target, const TrajectorySettings& settings,
                        const std::vector<TrajectoryRun>& runs, int threads) {
  check(settings, runs, threads);
  if (settings.epochs == 0) return;
  // Runs share nothing: any thread may train any run.
  std::size_t most = 0;
  for (const TrajectoryRun& run : runs) {
    most = std::max(most, workspace_floats(settings, run.positives));
  }
  const std::size_t parts = std::max<std::size_t>(
      1, std::min<std::size_t>(runs.size(), static_cast<std::size_t>(threads)));
  // All memory before the first thread: a failed allocation is then an ordinary exception.
  std::vector<std::vector<Line>> memory(parts);
  for (auto& block : memory) block.resize(most / kUnit);
  for_each_item(parts, runs.size(), [&](std::uint64_t part, std::size_t k) {
    const DefaultFloats environment;
    std::fill(memory[part].begin(), memory[part].end(), Line{});
    target.train_run(settings, runs[k], memory[part][0].values);
  });
}

}  // namespace mmcl

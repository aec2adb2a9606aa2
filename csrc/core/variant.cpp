#include "variant.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>

#include "default_floats.h"
#include "embed.h"
#include "parallel.h"
#include "target.h"
#include "variant_workspace.h"

namespace mmcl {
namespace {

struct alignas(64) Line {
  float values[kUnit];
};

void check_settings(const VariantSettings& s, int threads) {
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
  if (s.n < 1 || s.m < 1) throw std::invalid_argument("n, m: expected at least 1");
  if (s.n > 1u << 29 || s.axes > 1u << 29) {
    throw std::invalid_argument("n, axes: expected at most 2^29");
  }
  check_power(s.q);
  if (s.patches < 1 || s.patches > 2) throw std::invalid_argument("patches: expected 1 or 2");
  if (s.class_axes < 1 || s.class_axes > s.axes) {
    throw std::invalid_argument("class_axes: expected 1 .. axes");
  }
  if (s.modalities < 1 || s.modalities > 3) {
    throw std::invalid_argument("modalities: expected 1 .. 3");
  }
  if (s.logistic && (s.multi() || s.key_gradients || s.cosine || s.learned_tau)) {
    throw std::invalid_argument(
        "logistic: expected one modality, without key_gradients, cosine, learned tau");
  }
  if (!s.update && s.epochs != 1) throw std::invalid_argument("epochs: expected 1 without updates");
}

void check_run(const VariantSettings& s, const VariantRun& run) {
  const VariantCodes& codes = run.codes;
  if (codes.count < 1 || codes.count > codes.stride) {
    throw std::invalid_argument("codes: expected at least 1, and no more than there is room for");
  }
  const auto inside = [](std::int32_t x, std::size_t size) {
    return x >= 0 && static_cast<std::size_t>(x) < size;
  };
  for (std::size_t p = 0; p < s.patches; ++p) {
    for (std::size_t c = 0; c < codes.count; ++c) {
      if (!inside(codes.axis[p * codes.stride + c], s.axes)) {
        throw std::invalid_argument("axis: expected 0 .. axes - 1");
      }
    }
  }
  for (std::size_t k = 0; k < kinds_of_samples(s); ++k) {
    for (std::size_t i = 0; i < s.n; ++i) {
      if (!inside(codes.of[k][i], codes.count)) {
        throw std::invalid_argument("code: expected 0 .. codes - 1");
      }
    }
  }
  if (run.modalities[0].products.partner == nullptr) return;
  std::vector<bool> seen(s.n);
  for (std::size_t i = 0; i < s.n; ++i) {
    const std::int32_t partner = run.modalities[0].products.partner[i];
    if (!inside(partner, s.n) || seen[static_cast<std::size_t>(partner)]) {
      throw std::invalid_argument("partner: expected a permutation");
    }
    seen[static_cast<std::size_t>(partner)] = true;
  }
}

// Trains the runs, and ends early when the calling thread is told to.
class Trainer {
 public:
  Trainer(const Target& target, const VariantSettings& settings,
          const std::vector<VariantRun>& runs, const std::function<bool()>& go_on)
      : target_(target), settings_(settings), runs_(runs), go_on_(go_on) {}

  void train(std::vector<std::vector<Line>>& memory) {
    for_each_part(memory.size(), [&](std::uint64_t part) {
      const DefaultFloats environment;
      Asked asked{this, part == 0};
      for (std::size_t k = next_++; k < runs_.size(); k = next_++) {
        std::fill(memory[part].begin(), memory[part].end(), Line{});
        target_.train_variant(settings_, runs_[k], {&Asked::go_on, &asked}, memory[part][0].values);
        finish();
      }
      if (part == 0) watch();
    });
  }

 private:
  struct Asked {
    Trainer* trainer;
    bool may_ask;  // the calling thread alone
    static bool go_on(void* context) {
      const Asked& asked = *static_cast<const Asked*>(context);
      Trainer& trainer = *asked.trainer;
      if (asked.may_ask && !trainer.go_on_()) trainer.stopped_ = true;
      return !trainer.stopped_;
    }
  };

  void finish() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++finished_;
    all_finished_.notify_one();
  }

  // The calling thread asks on while others train the last runs.
  void watch() {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto done = [&] { return finished_ == runs_.size(); };
    while (!all_finished_.wait_for(lock, std::chrono::milliseconds(100), done)) {
      if (stopped_) return;
      lock.unlock();
      if (!go_on_()) stopped_ = true;
      lock.lock();
    }
  }

  const Target& target_;
  const VariantSettings& settings_;
  const std::vector<VariantRun>& runs_;
  const std::function<bool()>& go_on_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::condition_variable all_finished_;
  std::size_t finished_ = 0;
};

}  // namespace

void train_variants(const Target& target, const VariantSettings& settings,
                    const std::vector<VariantRun>& runs, int threads,
                    const std::function<bool()>& go_on) {
  check_settings(settings, threads);
  for (const VariantRun& run : runs) check_run(settings, run);
  if (settings.epochs == 0 || runs.empty()) return;
  std::size_t most = 0;
  for (const VariantRun& run : runs) {
    const bool orthogonal = run.modalities[0].products.all == nullptr;
    most = std::max(most, workspace_floats(settings, run.codes.count, orthogonal));
  }
  // All memory before the first thread: a failed allocation is then an ordinary exception.
  std::vector<std::vector<Line>> memory(
      std::min<std::size_t>(runs.size(), static_cast<std::size_t>(threads)));
  for (auto& block : memory) block.resize(most / kUnit);
  Trainer(target, settings, runs, go_on).train(memory);
}

}  // namespace mmcl

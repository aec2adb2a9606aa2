#include "gram.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "constants.h"

namespace mmcl {
namespace {

constexpr std::uint64_t kChunkBytes = std::uint64_t{1} << 20;  // fits a second-level cache
constexpr std::uint64_t kLeast = 512, kMost = 1024;  // longer: rows leave the first-level cache
constexpr std::uint64_t kPad = 16;  // keeps rows apart by no power of two; also the kernels' step

struct alignas(64) Line {  // a cache line: loads that straddle two are slower
  float values[16];
};

std::uint64_t chunk_dims(std::uint64_t samples) {
  const std::uint64_t fitting = kChunkBytes / sizeof(float) / samples;
  return std::min(kMost, std::max(kLeast, fitting / kTile * kTile));
}

class GramSum {
 public:
  GramSum(const Target& target, const Stream& stream, const std::array<std::uint64_t, 3>& start,
          std::uint64_t samples, std::uint64_t dims, double scale, double* out)
      : target_(target),
        stream_(stream),
        start_(start),
        samples_(samples),
        dims_(dims),
        scale_(scale),
        out_(out),
        chunk_(chunk_dims(samples)) {}

  std::uint64_t chunks() const { return (dims_ + chunk_ - 1) / chunk_; }

  struct Workspace {
    std::vector<Line> lines;   // [samples, chunk + pad]
    std::vector<double> part;  // [samples, samples], lower triangle
  };
  Workspace workspace() const {
    return {std::vector<Line>(samples_ * (chunk_ + kPad) / 16),
            std::vector<double>(samples_ * samples_)};
  }

  // Multiplies chunk after chunk until none is left. Chunks are claimed and added in order, so a
  // thread waits only for chunks that other threads are computing. Ends early once `go_on`, which
  // one of the threads asks after each of its chunks, says false.
  void work(Workspace& workspace, const GoOn& go_on) {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      if (stopped_) return;
      const std::uint64_t chunk = claimed_++;
      lock.unlock();
      if (chunk >= chunks()) return;
      multiply(chunk, workspace);
      const bool stop = go_on && !go_on();
      lock.lock();
      stopped_ = stopped_ || stop;
      turn_.wait(lock, [&] { return added_ == chunk || stopped_; });
      if (!stopped_) {
        for (std::size_t i = 0; i < workspace.part.size(); ++i) out_[i] += workspace.part[i];
        ++added_;
      }
      turn_.notify_all();
    }
  }

 private:
  void multiply(std::uint64_t chunk, Workspace& workspace) const {
    float* const x = workspace.lines[0].values;
    const std::uint64_t begin = chunk * chunk_, size = std::min(chunk_, dims_ - begin);
    const std::uint64_t stride = chunk_ + kPad, padded = (size + kPad - 1) / kPad * kPad;
    fill_normal<float>(target_, stream_,
                       {x,
                        {start_[0], start_[1], start_[2] + begin},
                        {1, samples_, size},
                        0,
                        static_cast<std::int64_t>(stride)},
                       scale_, 1);
    for (std::uint64_t i = 0; i < samples_; ++i) {
      std::fill(x + i * stride + size, x + i * stride + padded, 0.0f);
    }
    std::fill(workspace.part.begin(), workspace.part.end(), 0.0);
    target_.gram(x, samples_, stride, padded, workspace.part.data());
  }

  const Target& target_;
  const Stream stream_;
  const std::array<std::uint64_t, 3> start_;
  const std::uint64_t samples_, dims_;
  const double scale_;
  double* const out_;
  const std::uint64_t chunk_;
  std::mutex mutex_;
  std::condition_variable turn_;
  std::uint64_t claimed_ = 0, added_ = 0;
  bool stopped_ = false;
};

}  // namespace

void streaming_gram(const Target& target, const Stream& stream,
                    const std::array<std::uint64_t, 3>& start, std::uint64_t samples,
                    std::uint64_t dims, double scale, int threads, double* out, const GoOn& go_on) {
  check_region(stream, start, {1, samples, dims}, threads);
  std::fill(out, out + samples * samples, 0.0);
  if (samples == 0 || dims == 0) return;
  GramSum sum(target, stream, start, samples, dims, scale, out);
  const std::uint64_t workers =
      std::min<std::uint64_t>(static_cast<std::uint64_t>(threads), sum.chunks());
  std::vector<GramSum::Workspace> workspaces;
  for (std::uint64_t i = 0; i < workers; ++i) workspaces.push_back(sum.workspace());
  std::vector<std::thread> others;
  others.reserve(workers - 1);
  try {
    for (std::uint64_t i = 1; i < workers; ++i) {
      others.emplace_back([&sum, &workspace = workspaces[i]] { sum.work(workspace, nullptr); });
    }
  } catch (const std::system_error&) {
    // No further thread can be started: the running ones do all the work.
  }
  sum.work(workspaces[0], go_on);
  for (std::thread& other : others) other.join();
  for (std::uint64_t i = 0; i < samples; ++i) {
    for (std::uint64_t j = 0; j < i; ++j) out[j * samples + i] = out[i * samples + j];
  }
}

}  // namespace mmcl

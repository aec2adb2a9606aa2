#include "fill.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "compiler.h"

#if defined(MMCL_X86_64)
#include <xmmintrin.h>
#endif

#include "constants.h"
#include "default_floats.h"
#include "parallel.h"

namespace mmcl {
namespace {

// Above this size the output would evict everything else from the cache on its way through.
constexpr std::uint64_t kStreamingBytes = std::uint64_t{32} << 20;
// A thread costs more than it saves on fewer tiles.
constexpr std::uint64_t kTilesPerThread = 128;

constexpr std::uint64_t kLimits[3] = {std::uint64_t{1} << 32, std::uint64_t{1} << 32,
                                      std::uint64_t{1} << 34};

void fence() {
#if defined(MMCL_X86_64)
  _mm_sfence();
#endif
}

// generate(kernels, run, row, first tile, tiles, out) writes whole tiles; it is called with
// DefaultFloats. With `seeds`, each run of the slice is of another stream.
template <class T, class Generate>
class Filler {
 public:
  Filler(const Target& target, const Stream& stream, const Slice<T>& slice,
         const std::uint64_t* seeds, Generate generate)
      : target_(target), stream_(stream), slice_(slice), seeds_(seeds), generate_(generate) {
    const std::uint64_t end = slice.start[2] + slice.shape[2];
    first_tile_ = slice.start[2] / kTile;
    tiles_per_row_ = (end + kTile - 1) / kTile - first_tile_;
    rows_ = slice.shape[0] * slice.shape[1];
    large_ = rows_ * slice.shape[2] * sizeof(T) >= kStreamingBytes;
  }

  // Every value is a function of its coordinates alone, so any split gives the same output.
  void run(int threads) const {
    const std::uint64_t tiles = rows_ * tiles_per_row_;
    const auto most = static_cast<std::uint64_t>(threads);
    const std::uint64_t parts =
        std::max<std::uint64_t>(1, std::min<std::uint64_t>(most, tiles / kTilesPerThread));
    for_each_part(parts, [this, parts, tiles](std::uint64_t part) {
      fill(part_begin(part, parts, tiles), part_begin(part + 1, parts, tiles));
    });
  }

 private:
  // Tiles are numbered along the rows: tile k of the slice is in row k / tiles_per_row_.
  void fill(std::uint64_t begin, std::uint64_t end) const {
    const DefaultFloats environment;
    while (begin < end) {
      const std::uint64_t row = begin / tiles_per_row_, tile = begin % tiles_per_row_;
      const std::uint64_t count = std::min(tiles_per_row_ - tile, end - begin);
      fill_row(row / slice_.shape[1], row % slice_.shape[1], first_tile_ + tile, count);
      begin += count;
    }
    fence();
  }

  void fill_row(std::uint64_t run, std::uint64_t sample, std::uint64_t tile,
                std::uint64_t count) const {
    const std::uint64_t seed = seeds_ ? seeds_[run] : stream_.seed;
    const Row row{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                  static_cast<std::uint32_t>(slice_.start[1] + sample),
                  static_cast<std::uint32_t>(slice_.start[0] + (seeds_ ? 0 : run)),
                  stream_.tag << 24 | stream_.epoch};
    T* const out = slice_.data + static_cast<std::int64_t>(run) * slice_.run_stride +
                   static_cast<std::int64_t>(sample) * slice_.sample_stride;
    std::uint64_t end = tile + count;
    if (is_partial(tile)) fill_partial(run, row, tile++, out);
    if (end > tile && is_partial(end - 1)) fill_partial(run, row, --end, out);
    if (end == tile) return;
    T* const whole = out + (tile * kTile - slice_.start[2]);
    const bool aligned = reinterpret_cast<std::uintptr_t>(whole) % 64 == 0;
    generate_(large_ && aligned ? target_.streaming : target_.cached, run, row,
              static_cast<std::uint32_t>(tile), end - tile, whole);
  }

  bool is_partial(std::uint64_t tile) const {
    return tile * kTile < slice_.start[2] || (tile + 1) * kTile > slice_.start[2] + slice_.shape[2];
  }

  void fill_partial(std::uint64_t run, const Row& row, std::uint64_t tile, T* out) const {
    alignas(64) T whole[kTile];
    generate_(target_.cached, run, row, static_cast<std::uint32_t>(tile), 1, whole);
    const std::uint64_t begin = std::max(tile * kTile, slice_.start[2]);
    const std::uint64_t end = std::min((tile + 1) * kTile, slice_.start[2] + slice_.shape[2]);
    std::memcpy(out + (begin - slice_.start[2]), whole + begin % kTile, (end - begin) * sizeof(T));
  }

  const Target& target_;
  const Stream stream_;
  const Slice<T> slice_;
  const std::uint64_t* const seeds_;
  const Generate generate_;
  std::uint64_t first_tile_, tiles_per_row_, rows_;
  bool large_;
};

template <class T, class Generate>
void fill_with(const Target& target, const Stream& stream, const Slice<T>& slice,
               const std::uint64_t* seeds, int threads, Generate generate) {
  auto reached = slice.shape;
  if (seeds) reached[0] = std::min<std::uint64_t>(reached[0], 1);
  check_region(stream, slice.start, reached, threads);
  if (slice.shape[0] == 0 || slice.shape[1] == 0 || slice.shape[2] == 0) return;
  Filler<T, Generate>(target, stream, slice, seeds, generate).run(threads);
}

void make(const StreamKernels& k, const Row& row, std::uint32_t first, std::size_t tiles,
          double scale, float* out) {
  k.f32(row, first, tiles, static_cast<float>(scale), out);
}

void make(const StreamKernels& k, const Row& row, std::uint32_t first, std::size_t tiles,
          double scale, std::uint16_t* out) {
  k.bf16(row, first, tiles, static_cast<float>(scale), out);
}

void make(const StreamKernels& k, const Row& row, std::uint32_t first, std::size_t tiles,
          double scale, double* out) {
  k.f64(row, first, tiles, scale, out);
}

}  // namespace

void check_region(const Stream& stream, const std::array<std::uint64_t, 3>& begin,
                  const std::array<std::uint64_t, 3>& shape, int threads) {
  static const char* const kNames[3] = {"run", "sample", "dim"};
  for (int axis = 0; axis < 3; ++axis) {
    const std::uint64_t start = begin[axis], size = shape[axis];
    if (start > kLimits[axis] || size > kLimits[axis] - start) {
      throw std::invalid_argument(std::string(kNames[axis]) +
                                  ": expected start + size <= " + std::to_string(kLimits[axis]) +
                                  ", got " + std::to_string(start) + " + " + std::to_string(size));
    }
  }
  if (stream.tag > 0xff) throw std::invalid_argument("tag: expected 0..255");
  if (stream.epoch > 0xffffff) throw std::invalid_argument("epoch: expected 0..2^24 - 1");
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
}

template <class T>
void fill_normal(const Target& target, const Stream& stream, const Slice<T>& slice, double scale,
                 int threads) {
  fill_with(target, stream, slice, nullptr, threads,
            [scale](const StreamKernels& k, std::uint64_t, const Row& row, std::uint32_t first,
                    std::size_t tiles, T* out) { make(k, row, first, tiles, scale, out); });
}

template <class T>
void fill_normal(const Target& target, const Stream& stream, const Slice<T>& slice,
                 const PerRun& per_run, int threads) {
  fill_with(target, stream, slice, per_run.seeds, threads,
            [scales = per_run.scales](const StreamKernels& k, std::uint64_t run, const Row& row,
                                      std::uint32_t first, std::size_t tiles,
                                      T* out) { make(k, row, first, tiles, scales[run], out); });
}

void fill_words(const Target& target, const Stream& stream, const Slice<std::uint32_t>& slice,
                int threads) {
  fill_words(target, stream, slice, nullptr, threads);
}

void fill_words(const Target& target, const Stream& stream, const Slice<std::uint32_t>& slice,
                const std::uint64_t* seeds, int threads) {
  fill_with(target, stream, slice, seeds, threads,
            [](const StreamKernels& k, std::uint64_t, const Row& row, std::uint32_t first,
               std::size_t tiles, std::uint32_t* out) { k.words(row, first, tiles, out); });
}

#define MMCL_NORMALS(T)                                                                  \
  template void fill_normal(const Target&, const Stream&, const Slice<T>&, double, int); \
  template void fill_normal(const Target&, const Stream&, const Slice<T>&, const PerRun&, int);
MMCL_NORMALS(float)
MMCL_NORMALS(double)
MMCL_NORMALS(std::uint16_t)
#undef MMCL_NORMALS

}  // namespace mmcl

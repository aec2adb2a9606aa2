// Fills any slice [runs, samples, dims] of a stream, on any number of threads, with the same
// values.
#pragma once

#include <array>
#include <cstdint>

#include "target.h"

namespace mmcl {

struct Stream {
  std::uint64_t seed;
  std::uint32_t tag;    // below 2^8
  std::uint32_t epoch;  // below 2^24
};

// The destination: T is float, double or std::uint16_t (bfloat16) for normals, std::uint32_t
// for words. Strides count elements; rows must not overlap.
template <class T>
struct Slice {
  T* data;
  std::array<std::uint64_t, 3> start;  // run, sample, dim
  std::array<std::uint64_t, 3> shape;
  std::int64_t run_stride, sample_stride;
};

// Throws std::invalid_argument when a coordinate leaves its counter word, or for no threads.
void check_region(const Stream& stream, const std::array<std::uint64_t, 3>& start,
                  const std::array<std::uint64_t, 3>& shape, int threads);

// Seed and scale of each run of a slice: run r is run `start[0]` of the stream with seeds[r], times
// scales[r].
struct PerRun {
  const std::uint64_t* seeds;
  const double* scales;
};

// All throw as check_region does, before writing.
// At most `threads` threads run; fewer when the slice is small.
template <class T>
void fill_normal(const Target& target, const Stream& stream, const Slice<T>& slice, double scale,
                 int threads);
template <class T>
void fill_normal(const Target& target, const Stream& stream, const Slice<T>& slice,
                 const PerRun& per_run, int threads);
void fill_words(const Target& target, const Stream& stream, const Slice<std::uint32_t>& slice,
                int threads);
void fill_words(const Target& target, const Stream& stream, const Slice<std::uint32_t>& slice,
                const std::uint64_t* seeds, int threads);

}  // namespace mmcl

// Gram matrix of rows of a stream, made a chunk of dimensions at a time and never held.
#pragma once

#include <array>
#include <functional>

#include "fill.h"

namespace mmcl {

using GoOn = std::function<bool()>;

// out[i * samples + j] = sum_k x_ik x_jk with x the float32 normals times `scale` at
// [start[0], start[1] + i, start[2] + k], k < dims. Within a chunk of 512 to 1024 dimensions sums
// are float32; chunks are added in double, in their order, so that `threads` changes nothing.
// Throws std::invalid_argument when a coordinate leaves its counter word. The calling thread asks
// `go_on`, if there is one, after each of its chunks; false ends the call, and `out` is unfinished.
void streaming_gram(const Target& target, const Stream& stream,
                    const std::array<std::uint64_t, 3>& start, std::uint64_t samples,
                    std::uint64_t dims, double scale, int threads, double* out,
                    const GoOn& go_on = nullptr);

}  // namespace mmcl

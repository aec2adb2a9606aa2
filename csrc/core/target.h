// The functions of the core for one instruction set, and the choice of the set at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "embed.h"
#include "head.h"
#include "inner_products.h"
#include "trajectory.h"
#include "variant.h"

namespace mmcl {

// Philox's key and the three counter words that are constant along a row of dimensions.
struct Row {
  std::uint32_t key0, key1;
  std::uint32_t sample, run, tag_epoch;
};

// The random stream: write `tiles` whole tiles of 256 dimensions, from tile `first` of the row on.
struct StreamKernels {
  void (*f32)(const Row&, std::uint32_t first, std::size_t tiles, float scale, float* out);
  void (*bf16)(const Row&, std::uint32_t first, std::size_t tiles, float scale, std::uint16_t* out);
  void (*f64)(const Row&, std::uint32_t first, std::size_t tiles, double scale, double* out);
  void (*words)(const Row&, std::uint32_t first, std::size_t tiles, std::uint32_t* out);
};

// Passes over the n elements of a row of scores; csrc/core/softmax.h defines terms. `out` may be
// `scores`, or null to write no terms. `next` is the row to prefetch.
struct SoftmaxKernels {
  // The largest element, and at least kLowestMax; not-a-number is ignored.
  float (*row_largest)(const float* scores, const float* next, std::size_t n);
  // Raises max[j] to element j.
  void (*column_largest)(const float* scores, const float* next, std::size_t n, float* max);
  float (*both_largest)(const float* scores, const float* next, std::size_t n, float* column_max);
  // The sum of the terms.
  float (*row_terms)(const float* scores, const float* next, float* out, std::size_t n, float max);
  // Adds term j to sum[j].
  void (*column_terms)(const float* scores, const float* next, float* out, std::size_t n,
                       const float* max, float* sum);
  float (*both_terms)(const float* scores, const float* next, std::size_t n, float row_max,
                      const float* column_max, float* column_sum);
  // In place: the terms times the scale; with both, their sum.
  void (*row_weights)(float* scores, const float* next, std::size_t n, float max, float scale);
  void (*both_weights)(float* scores, const float* next, std::size_t n, float row_max,
                       float row_scale, const float* column_max, const float* column_scale);
  // In place: 1 / (1 + 2^-s); returns the sum of log2(1 + 2^s).
  float (*softplus)(float* scores, const float* next, std::size_t n);
  float (*sum)(const float* x, std::size_t n);
  float (*dot)(const float* x, const float* y, std::size_t n);
};

// `streaming` bypasses the cache: `out` must be a multiple of 64 bytes, and the caller fences.
struct Target {
  const char* name;
  // Whether it was compiled to fuse products and sums: a mistake of the build.
  bool (*fuses)();
  StreamKernels cached, streaming;
  // Adds the lower triangle of X X^T; the rows of x are `stride` apart, `dims` is a multiple of 16.
  void (*gram)(const float* x, std::size_t rows, std::size_t stride, std::size_t dims, double* out);
  SoftmaxKernels softmax;
  EmbedKernel embed;
  InnerProductsKernel inner_products;
  TrainRun train_run;
  TrainVariant train_variant;
  HeadKernels head;
};

// The targets that this machine can run, slowest first. Throws std::runtime_error if the core was
// compiled to fuse products and sums.
std::vector<const Target*> targets();

// The target of this name; "auto" is the fastest, or the one named by the environment variable
// MMCL_CPU_TARGET (read at the first call). Throws std::invalid_argument for a name this machine
// cannot run.
const Target& find_target(const std::string& name);

}  // namespace mmcl

// What one instruction set offers, and the choice among them at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "embed.h"
#include "head.h"
#include "inner_products.h"
#include "trajectory.h"

namespace mmcl {

// Key and the three counter words that are fixed along a row of dimensions.
struct Row {
  std::uint32_t key0, key1;
  std::uint32_t sample, run, tag_epoch;
};

// Write `tiles` whole tiles of 256 dimensions, from tile `first` of the row on.
struct Kernels {
  void (*f32)(const Row&, std::uint32_t first, std::size_t tiles, float scale, float* out);
  void (*bf16)(const Row&, std::uint32_t first, std::size_t tiles, float scale, std::uint16_t* out);
  void (*f64)(const Row&, std::uint32_t first, std::size_t tiles, double scale, double* out);
  void (*words)(const Row&, std::uint32_t first, std::size_t tiles, std::uint32_t* out);
};

// Passes over the n elements of a row of scores; csrc/core/softmax.h says what a term is. `out` may
// be `scores`, or null where terms are not wanted. `next` is a row that will be wanted soon.
struct SoftmaxKernels {
  // The largest element, and at least kLowestTop; not-a-number is passed over.
  float (*row_largest)(const float* scores, const float* next, std::size_t n);
  // Raises top[j] to element j.
  void (*column_largest)(const float* scores, const float* next, std::size_t n, float* top);
  float (*both_largest)(const float* scores, const float* next, std::size_t n, float* column_top);
  // The sum of the terms.
  float (*row_terms)(const float* scores, const float* next, float* out, std::size_t n, float top);
  // Adds term j to sum[j].
  void (*column_terms)(const float* scores, const float* next, float* out, std::size_t n,
                       const float* top, float* sum);
  float (*both_terms)(const float* scores, const float* next, std::size_t n, float row_top,
                      const float* column_top, float* column_sum);
  // In place: the terms times the scale; with both, their sum.
  void (*row_weights)(float* scores, const float* next, std::size_t n, float top, float scale);
  void (*both_weights)(float* scores, const float* next, std::size_t n, float row_top,
                       float row_scale, const float* column_top, const float* column_scale);
  // In place: 1 / (1 + 2^-s); returns the sum of log2(1 + 2^s).
  float (*softplus)(float* scores, const float* next, std::size_t n);
};

// `streaming` bypasses the cache: `out` must be a multiple of 64 bytes, and the caller fences.
struct Target {
  const char* name;
  Kernels cached, streaming;
  // Adds the lower triangle of X X^T; the rows of x are `stride` apart, `dims` is a multiple of 16.
  void (*gram)(const float* x, std::size_t rows, std::size_t stride, std::size_t dims, double* out);
  SoftmaxKernels softmax;
  EmbedKernel embed;
  InnerProductsKernel inner_products;
  TrainRun train_run;
  HeadKernels head;
};

// Targets this machine can run, slowest first.
std::vector<const Target*> targets();

// The target named so; "auto" is the fastest, or what the environment variable MMCL_CPU_TARGET
// names (read at the first call). Throws std::invalid_argument for a name this machine cannot run.
const Target& find_target(const std::string& name);

}  // namespace mmcl

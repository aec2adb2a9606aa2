// Logistic heads of many small problems, float64, the same bits on every instruction set.
//
//   minimise over (w, b)   mean_i log(1 + exp(-y_i (<w, f_i> + b))) + (l2 / 2) |w|^2
//
// Damped Newton as in mmcl_fast/training/linear_probe.py, which documents the method: in w for
// p <= n, and for p > n in the coefficients a of w = F^T a. One problem on one thread, every sum
// one chain of fused multiply-adds, or of eight lanes that are added in a fixed order.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mmcl {

struct Target;

struct HeadSettings {
  std::size_t n, p;
  double l2;
  double tolerance;  // of the gradient, relative as in mmcl_fast/training/linear_probe.py
  std::size_t most_steps;
};

// One problem. T is float or double.
template <class T>
struct HeadFit {
  const T* features;    // [n, p]
  const float* labels;  // +1 or -1, both present, [n]
  double* weight;       // [p]; not-a-number if a feature is not finite
  double* bias;
  bool* converged;
  std::int64_t* steps;
};

// Samples that a head classifies.
template <class T>
struct HeadScore {
  const T* features;     // [n, p]
  const float* labels;   // [n]
  const double* weight;  // [p]
  double bias;
  // Accuracy: the share of samples whose label is the sign of <w, f> + b, 0 counting as -1;
  // not-a-number if a feature or score is not finite.
  double* share;
};

// `memory` begins at a multiple of 64 bytes, [head_doubles]. By instruction set.
struct HeadKernels {
  void (*fit_narrow)(const HeadSettings&, const HeadFit<float>&, double* memory);
  void (*fit_wide)(const HeadSettings&, const HeadFit<double>&, double* memory);
  void (*score_narrow)(std::size_t n, std::size_t p, const HeadScore<float>&);
  void (*score_wide)(std::size_t n, std::size_t p, const HeadScore<double>&);
};

// Arrays of `problems` problems, contiguous.
template <class T>
struct HeadBatch {
  std::size_t problems;
  const T* features;
  const float* labels;
  double *weight, *bias;
  bool* converged;      // fits only
  std::int64_t* steps;  // fits only
  double* share;        // scores only
};

// At most `threads` problems at a time.
template <class T>
void fit_heads(const Target& target, const HeadSettings& settings, const HeadBatch<T>& batch,
               int threads);

template <class T>
void score_heads(const Target& target, std::size_t n, std::size_t p, const HeadBatch<T>& batch,
                 int threads);

}  // namespace mmcl

// Complete training runs of model variants in coefficient space: full-batch gradient descent of
// contrastive and logistic losses on inner products alone, float32.
//
// Beyond trajectory.h: scores of all pairs, several signal patches and signals, keys that carry
// gradients, cosine similarity, a temperature that is learned, a supervised loss. The meaning of
// each is in docs/mathematics.md.
//
// Pre-activations at the vectors [noise patches, signals, noise patches of the views] change by
// Z <- Z + C K, where K holds their inner products with the columns that span the weights. A
// sample's signal patches are one of a few combinations, its code: their part in scores and
// gradients is computed for pairs of codes, not of samples.
//
// The same bits on every instruction set, as in trajectory.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace mmcl {

struct Target;

// Settings that all runs of a call share.
struct VariantSettings {
  std::size_t n, m;        // samples, neurons
  int q;                   // power of the activation
  std::size_t modalities;  // 1, with augmented views unless logistic, or 2 or 3
  bool logistic;           // logistic loss of one modality, without views
  bool all_negatives;      // or those whose label differs
  bool key_gradients;      // keys and positives carry gradients
  bool cosine;             // cosine similarity, or inner product over m
  bool learned_tau;        // gradient descent on log(1 / tau)
  std::size_t axes;        // signals, orthogonal vectors
  std::size_t class_axes;  // the first of them, which the curve of the signal is of
  std::size_t patches;     // signal patches of a sample, 1 or 2
  std::size_t epochs;      // updates; curves are measured before each
  bool update;             // false: measure once and change nothing (epochs must be 1)

  bool multi() const { return modalities > 1; }
};

// Columns that span the weights of a modality, and vectors that have pre-activations.
struct VariantSizes {
  bool views;
  std::size_t columns, vectors;
};

static inline VariantSizes sizes_of(const VariantSettings& s) {
  const bool views = !s.multi() && !s.logistic;
  const std::size_t samples = s.n + s.axes;
  return {views, samples + (views && s.key_gradients ? s.n : 0), samples + (views ? s.n : 0)};
}

// Modality A's samples, and their views or samples of the other modalities.
static inline std::size_t kinds_of_samples(const VariantSettings& s) {
  return s.multi() ? s.modalities : 2;
}

// Inner products of one modality: all, or those that are not 0 where noise patches are orthogonal.
struct VariantProducts {
  const float* all;             // K, [columns, vectors], or null:
  const float* squares;         // squared norms, [vectors]
  const float* with_view;       // <xi_p, view_i> with p = partner_i, [n]; only with views
  const std::int32_t* partner;  // a permutation, [n]
};

struct VariantModality {
  VariantProducts products;
  float* z;             // Z, [m, vectors]
  float* coefficients;  // the coefficients A, [m, columns]
};

// Signal patch p of a sample with code c is sign[p][c] times signal axis[p][c].
struct VariantCodes {
  std::size_t count, stride;  // codes, and entries from patch to patch
  const std::int32_t* axis;   // [patches, stride]
  const float* sign;          // +1 or -1, [patches, stride]
  const std::int32_t* of[3];  // code of each sample of modality A, of its view or its sample of
                              // modality B, and of that of modality C, [n] each
};

struct VariantRun {
  VariantCodes codes;
  const float* labels[3];  // likewise, [n] each
  const float* targets;    // +1 or -1, of the logistic loss, [n]
  float tau, eta, eta_tau;
  double* log_inverse_tau;        // of a learned temperature, instead of tau
  VariantModality modalities[3];  // as many as there are
  float *loss, *signal, *noise;   // [epochs] each
  float* temperature;             // of a learned one, [epochs]
};

// Whether to go on; asked once an epoch.
struct VariantGuard {
  bool (*go_on)(void*);
  void* context;
};

// One run on this thread; `memory` is zero and begins at a multiple of 64 bytes. By instruction
// set.
using TrainVariant = void (*)(const VariantSettings&, const VariantRun&, const VariantGuard&,
                              float* memory);

// Trains each run on a single thread, at most `threads` runs at a time. A loss that is not finite
// ends a run: the rest of its curves is not-a-number. The calling thread asks `go_on` once an
// epoch, or ten times a second while others work; false ends the call, and what it wrote is
// unfinished. Throws std::invalid_argument.
void train_variants(const Target& target, const VariantSettings& settings,
                    const std::vector<VariantRun>& runs, int threads,
                    const std::function<bool()>& go_on);

}  // namespace mmcl

// The workspace of a run of a model variant, in one piece of memory.
#pragma once

#include "trajectory_workspace.h"
#include "variant.h"

namespace mmcl {
namespace {

// One modality. Its own samples lie along the lanes.
struct VariantModalityWorkspace {
  float* blocks;                    // K by blocks of columns, or null if orthogonal
  float* z;                         // Z, [m, width]
  float *features, *view_features;  // act of the noise patches and of the views', [m, samples]
  float* change;                    // C, [m, change_stride]
  std::int32_t* active;             // columns that change, [m, change_stride]: samples with z > 0,
  std::int32_t *active_samples, *active_count;  // signals, views with z > 0; their numbers, [m]
  float* signal;                                // <w_r, signal>, [axes, neurons]
  float* code_features;          // act of the signal patches, [patches, codes, neurons]
  float* code_columns;           // its transpose, [patches, m, code_stride]
  float* code_gradient;          // [patches, codes, neurons]
  float* code_weight;            // C's factor of the other's code_features, [codes, code_stride]
  float* code_radial;            // of the modality's own, [codes]
  float* scores;                 // of own queries and all keys, then their weights, [rows, samples]
  float* exps;                   // e^(s - max); scores, unless these are needed again
  float* code_scores;            // the signals' part in scores, by codes, [codes, code_stride]
  float* signal_scores;          // the same by the key's code and the query, [codes, samples]
  float* positive_score;         // score of each query's positive, [samples]
  float *inverse, *share, *gap;  // of each query: 1 / sum of e^(s - max); sum of p over its
                                 // negatives; sum of p (s - s_positive); [samples]
  float *key_weight, *positive_weight;   // factors in the gradient, [samples]
  float *inverse_norm, *inverse_square;  // of cosine: 1 / |H|, 1 / |H|^2, [samples]
  float *view_inverse_norm, *view_inverse_square;
  float *radial, *view_radial;  // factor of a sample's own features in its gradient, [samples]
};

struct VariantWorkspace {
  VariantWorkspace(const VariantSettings& s, std::size_t code_count, bool orthogonal, Arena& arena)
      : sizes(sizes_of(s)),
        codes(code_count),
        samples(padded(s.n) + kUnit),
        neurons(padded(s.m)),
        change_stride(padded(sizes.columns) + kUnit),
        width(padded(sizes.vectors) + kUnit),
        code_stride(padded(code_count) + kUnit) {
    present = arena.integers(s.axes);
    gathered = arena.floats(samples);
    for (std::size_t k = 0; k < s.modalities; ++k) {
      allocate(s, orthogonal, arena, modalities[k]);
      if (!s.logistic) allocate_scores(s, arena, modalities[k]);
    }
  }

  VariantSizes sizes;
  std::size_t codes;
  std::size_t samples, neurons, change_stride, width, code_stride;  // entries from row to row
  std::int32_t* present;  // whether a code has the signal, [axes]
  float* gathered;        // a row in another order, [samples]
  VariantModalityWorkspace modalities[3];

 private:
  void allocate(const VariantSettings& s, bool orthogonal, Arena& arena,
                VariantModalityWorkspace& to) const {
    const std::size_t of_codes = s.patches * codes * neurons;
    to.blocks = orthogonal ? nullptr : arena.floats(sizes.columns * padded(sizes.vectors));
    to.z = arena.floats(s.m * width);
    to.features = arena.floats(s.m * samples);
    to.view_features = sizes.views ? arena.floats(s.m * samples) : nullptr;
    to.change = arena.floats(s.m * change_stride);
    to.active = arena.integers(s.m * change_stride);
    to.active_samples = arena.integers(s.m);
    to.active_count = arena.integers(s.m);
    to.signal = arena.floats(s.axes * neurons);
    to.code_features = arena.floats(of_codes);
    to.code_gradient = arena.floats(of_codes);
    to.key_weight = arena.floats(samples);
  }

  void allocate_scores(const VariantSettings& s, Arena& arena, VariantModalityWorkspace& to) const {
    const std::size_t rows = padded(s.n) + kUnit;
    to.code_columns = arena.floats(s.patches * s.m * code_stride);
    to.code_weight = arena.floats(codes * code_stride);
    to.code_radial = arena.floats(codes);
    to.scores = arena.floats(rows * samples);
    to.exps = s.cosine && s.key_gradients ? arena.floats(rows * samples) : to.scores;
    to.code_scores = arena.floats((padded(codes) + kUnit) * code_stride);
    to.signal_scores = arena.floats(codes * samples);
    for (float** const row :
         {&to.positive_score, &to.inverse, &to.share, &to.gap, &to.positive_weight,
          &to.inverse_norm, &to.inverse_square, &to.view_inverse_norm, &to.view_inverse_square,
          &to.radial, &to.view_radial}) {
      *row = arena.floats(samples);
    }
  }
};

}  // namespace

static inline std::size_t workspace_floats(const VariantSettings& s, std::size_t codes,
                                           bool orthogonal) {
  Arena arena(nullptr);
  const VariantWorkspace workspace(s, codes, orthogonal, arena);
  return arena.used();
}

}  // namespace mmcl

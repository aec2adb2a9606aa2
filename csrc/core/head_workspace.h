// The workspace of a fit, in one piece of memory. Everything is static or in an unnamed
// namespace, as in trajectory_workspace.h.
#pragma once

#include "head.h"
#include "units.h"

namespace mmcl {

static inline std::size_t in_units(std::size_t size) {
  return (size + kDoubles - 1) / kDoubles * kDoubles;
}

namespace {

struct HeadWorkspace {
  HeadWorkspace(const HeadSettings& s, double* memory)
      : primal(s.p <= s.n),
        unknowns(primal ? s.p : s.n),
        samples(in_units(s.n)),
        features(in_units(s.p)),
        width(in_units(unknowns + (primal ? 1 : 2))),
        memory_(memory) {
    const std::size_t longest = samples > features ? samples : features;
    rows = take(s.n * features);
    columns = take(s.p * samples);
    system = take(in_units(unknowns) * width);
    // Primal: the features weighted; dual: the kernel.
    matrix = take(primal ? s.n * features : samples * samples);
    double** const vectors[] = {&mean,   &coef,   &step,      &y,         &valid,
                                &score,  &change, &residuals, &curvature, &projected,
                                &second, &root,   &scratch,   &inverse};
    for (double** const vector : vectors) *vector = take(longest + kDoubles);
  }
  std::size_t used() const { return used_; }

  bool primal;
  std::size_t unknowns;                  // p, or n in the dual form
  std::size_t samples, features, width;  // doubles from row to row
  double *rows, *columns;  // centred features, [n, features], and their transpose, [p, samples]
  double* system;          // Newton's matrix and right sides, then its factor, [unknowns, width]
  double* matrix;
  double *mean, *coef, *step, *y, *valid, *score, *change, *residuals, *curvature, *projected,
      *second, *root;
  double *scratch, *inverse;

 private:
  double* take(std::size_t count) {
    double* const part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += in_units(count);
    return part;
  }
  double* memory_;
  std::size_t used_ = 0;
};

}  // namespace

static inline std::size_t head_doubles(const HeadSettings& s) {
  return HeadWorkspace(s, nullptr).used();
}

}  // namespace mmcl

#include "rows.h"

#include <algorithm>
#include <cmath>

#include "default_floats.h"
#include "softmax_constants.h"

namespace mmcl {
namespace {

constexpr float kLeastNorm = 1e-12f;

double product(const Target& target, const float* x, const float* y, std::size_t n) {
  double sum = 0.0;
  for (std::size_t j = 0; j < n; j += kSegment) {
    sum += double{target.softmax.dot(x + j, y + j, std::min(kSegment, n - j))};
  }
  return sum;
}

}  // namespace

void row_products(const Target& target, const Matrix<const float>& x, const Matrix<const float>& y,
                  float* out) {
  const DefaultFloats environment;
  for (std::size_t i = 0; i < x.rows; ++i) {
    out[i] = static_cast<float>(product(target, x.row(i), y.row(i), x.columns));
  }
}

void unit_rows(const Target& target, const Matrix<const float>& x, const Matrix<float>& unit,
               float* norm) {
  const DefaultFloats environment;
  for (std::size_t i = 0; i < x.rows; ++i) {
    const float* const from = x.row(i);
    float* const to = unit.row(i);
    norm[i] = static_cast<float>(std::sqrt(product(target, from, from, x.columns)));
    // Not std::max, which would hide a norm that is not-a-number.
    const float divisor = norm[i] < kLeastNorm ? kLeastNorm : norm[i];
    for (std::size_t j = 0; j < x.columns; ++j) to[j] = from[j] / divisor;
  }
}

void unit_rows_gradient(const Target& target, const Matrix<const float>& unit, const float* norm,
                        const Matrix<float>& gradient) {
  const DefaultFloats environment;
  for (std::size_t i = 0; i < unit.rows; ++i) {
    const float* const u = unit.row(i);
    float* const g = gradient.row(i);
    if (norm[i] < kLeastNorm) {
      for (std::size_t j = 0; j < unit.columns; ++j) g[j] /= kLeastNorm;
      continue;
    }
    const auto along = static_cast<float>(product(target, g, u, unit.columns));
    for (std::size_t j = 0; j < unit.columns; ++j) g[j] = (g[j] - along * u[j]) / norm[i];
  }
}

}  // namespace mmcl

// Rows of features: their inner products, and their directions.
//
// Results do not depend on the instruction set: products are sums of the fixed shape of softmax.h
// over 1024 features at a time, added in double.
#pragma once

#include "softmax.h"
#include "target.h"

namespace mmcl {

// out_i = <x_i, y_i>.
void row_products(const Target& target, const Matrix<const float>& x, const Matrix<const float>& y,
                  float* out);

// Rows over their Euclidean norms, which are written; a norm below 1e-12 counts as 1e-12. `unit`
// may be `x` itself.
void unit_rows(const Target& target, const Matrix<const float>& x, const Matrix<float>& unit,
               float* norm);

// In place, from the gradient in unit rows to that in the rows: (g - <g, u> u) / norm; where the
// norm is below 1e-12, g / 1e-12.
void unit_rows_gradient(const Target& target, const Matrix<const float>& unit, const float* norm,
                        const Matrix<float>& gradient);

}  // namespace mmcl

// Inner products of two lists of rows, float32, the same bits on every instruction set.
#pragma once

#include <cstddef>
#include <vector>

namespace mmcl {

struct Target;

// out[i][j] = <left[i], right[j]>. The first `shared` rows of both lists are the same: half of
// their products are copied.
struct InnerProducts {
  const float* const* left;
  std::size_t rows;
  const float* const* right;
  std::size_t columns;
  std::size_t shared, dims;
  float* const* out;  // `rows` pointers
};

using InnerProductsKernel = void (*)(const InnerProducts&);

// Each on a single thread, at most `threads` at a time.
void inner_products(const Target& target, const std::vector<InnerProducts>& all, int threads);

}  // namespace mmcl

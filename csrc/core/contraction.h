// Whether a file was compiled to fuse products and sums, which takes one rounding from them and
// changes results: GCC and Clang do so by default where there is an instruction for it.
#pragma once

#include "units.h"

namespace mmcl {

// x^2 - 1 - 2^-11 is 2^-24 exactly, and 0 with the square rounded.
constexpr float kFusedFactor = 0x1.001p+0f, kFusedTerm = -0x1.002p+0f;

// Plain C++ of the file that includes this.
static inline bool fuses() {
  const volatile float factor = kFusedFactor, term = kFusedTerm;  // computed at run time
  const float x = factor;
  return x * x + term != 0.0f;
}

// Plain C++, and the operations of a wrapper `L` (units.h), which compilers fuse as well.
template <class L>
static bool fuses() {
  const volatile float factor = kFusedFactor, term = kFusedTerm;
  const auto x = L::broadcast(factor);
  const auto rest = L::add(L::mul(x, x), L::broadcast(term));
  return fuses() || largest<L>(rest) != 0.0f;
}

}  // namespace mmcl

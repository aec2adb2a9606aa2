// Units: sixteen floats or eight doubles, whatever the instruction set.
//
// The templates of this folder are written over wrappers of an instruction set: `V` is one register
// of floats (simd.h), `L` a unit of floats, `D` a unit of doubles. A wrapper must be a type of an
// unnamed namespace: no code made from it is then shared between files that are compiled for
// different instruction sets. A function that is no template must be static for the same reason.
#pragma once

#include <cstddef>

#include "compiler.h"

namespace mmcl {

// Rows begin at multiples of a unit.
constexpr std::size_t kUnit = 16;    // floats
constexpr std::size_t kDoubles = 8;  // doubles

// Calls f(tag, first unit) with tag.value units at a time until `units` are done.
template <int kMost>
struct Units {
  static constexpr int value = kMost;
  template <class F>
  static MMCL_INLINE void cover(std::size_t first, std::size_t units, F f) {
    while (units - first >= kMost) {
      f(Units(), first);
      first += kMost;
    }
    if (first < units) Units<kMost - 1>::cover(first, units, f);
  }
};
template <>
struct Units<0> {
  template <class F>
  static MMCL_INLINE void cover(std::size_t, std::size_t, F) {}
};

// The sum over a unit, by halves: the same bits whatever the wrapper.
template <class W>
MMCL_INLINE typename W::Scalar sum(typename W::Float a) {
  typename W::Scalar part[W::width];
  W::store(part, a);
  MMCL_UNROLL(4)
  for (int half = W::width / 2; half > 0; half /= 2) {
    MMCL_UNROLL(8)
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  }
  return part[0];
}

// The largest element of a unit.
template <class W>
MMCL_INLINE typename W::Scalar largest(typename W::Float a) {
  typename W::Scalar part[W::width];
  W::store(part, a);
  typename W::Scalar maximum = part[0];
  for (int i = 1; i < W::width; ++i) maximum = part[i] > maximum ? part[i] : maximum;
  return maximum;
}

}  // namespace mmcl

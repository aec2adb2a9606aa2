// Two registers as one, for units (units.h) that are wider than a register: also pairs of pairs.
#pragma once

#include "units.h"

namespace mmcl {
namespace {

// Operations of the register `R` on both halves.
template <class R>
struct Pair {
  using Scalar = typename R::Scalar;
  struct Float {
    typename R::Float low, high;
  };
  struct Mask {
    typename R::Mask low, high;
  };
  static constexpr int half = R::width, width = 2 * half;

  static MMCL_INLINE Float broadcast(Scalar x) { return {R::broadcast(x), R::broadcast(x)}; }
  static MMCL_INLINE Float load(const Scalar* from) {
    return {R::load(from), R::load(from + half)};
  }
  static MMCL_INLINE void store(Scalar* to, Float a) {
    R::store(to, a.low);
    R::store(to + half, a.high);
  }
  // Of a pair that holds lanes begin, begin + 1, ... of a unit: those before `lanes`.
  template <class From>
  static MMCL_INLINE Float load_first(const From* from, std::size_t lanes, int begin = 0) {
    return {R::load_first(from, lanes, begin), R::load_first(from + half, lanes, begin + half)};
  }
  static MMCL_INLINE void store_first(Scalar* to, Float a, std::size_t lanes, int begin = 0) {
    R::store_first(to, a.low, lanes, begin);
    R::store_first(to + half, a.high, lanes, begin + half);
  }
  static MMCL_INLINE Float add(Float a, Float b) {
    return {R::add(a.low, b.low), R::add(a.high, b.high)};
  }
  static MMCL_INLINE Float subtract(Float a, Float b) {
    return {R::subtract(a.low, b.low), R::subtract(a.high, b.high)};
  }
  static MMCL_INLINE Float mul(Float a, Float b) {
    return {R::mul(a.low, b.low), R::mul(a.high, b.high)};
  }
  static MMCL_INLINE Float divide(Float a, Float b) {
    return {R::divide(a.low, b.low), R::divide(a.high, b.high)};
  }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) {
    return {R::fma(a.low, b.low, c.low), R::fma(a.high, b.high, c.high)};
  }
  static MMCL_INLINE Float sqrt(Float a) { return {R::sqrt(a.low), R::sqrt(a.high)}; }
  static MMCL_INLINE Float maximum(Float a, Float b) {
    return {R::maximum(a.low, b.low), R::maximum(a.high, b.high)};
  }
  static MMCL_INLINE Float minimum(Float a, Float b) {
    return {R::minimum(a.low, b.low), R::minimum(a.high, b.high)};
  }

  static MMCL_INLINE Mask less(Float a, Float b) {
    return {R::less(a.low, b.low), R::less(a.high, b.high)};
  }
  static MMCL_INLINE Mask both(Mask a, Mask b) {
    return {R::both(a.low, b.low), R::both(a.high, b.high)};
  }
  static MMCL_INLINE Mask first(std::size_t lanes, int begin = 0) {
    return {R::first(lanes, begin), R::first(lanes, begin + half)};
  }
  // Lane i as bit i.
  static MMCL_INLINE std::uint32_t set_lanes(Mask m) {
    return R::set_lanes(m.low) | R::set_lanes(m.high) << half;
  }
  static MMCL_INLINE std::size_t count(Mask m) {
    return static_cast<std::size_t>(count_bits(set_lanes(m)));
  }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) {
    return {R::select(m.low, a.low, b.low), R::select(m.high, a.high, b.high)};
  }
  static MMCL_INLINE Float keep(Mask m, Float a) {
    return {R::keep(m.low, a.low), R::keep(m.high, a.high)};
  }
  static MMCL_INLINE Float drop(Mask m, Float a) {
    return {R::drop(m.low, a.low), R::drop(m.high, a.high)};
  }
  static MMCL_INLINE std::size_t append(Mask m, std::int32_t start, std::int32_t* to) {
    std::size_t written = 0;
    for (std::uint32_t left = set_lanes(m); left != 0; left &= left - 1) {
      to[written++] = start + lowest_bit(left);
    }
    return written;
  }

  static MMCL_INLINE Float two_to_the(Float shifted) {
    return {R::two_to_the(shifted.low), R::two_to_the(shifted.high)};
  }
  static MMCL_INLINE void split(Float u, Float& exponent, Float& mantissa) {
    R::split(u.low, exponent.low, mantissa.low);
    R::split(u.high, exponent.high, mantissa.high);
  }
};

}  // namespace
}  // namespace mmcl

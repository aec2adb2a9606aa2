// Units (units.h) as two AVX2 registers.
#pragma once

#include "avx2_registers.h"

namespace mmcl {
namespace {

// Operations of the register `R` on both halves.
template <class R>
struct Avx2Pair {
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
  template <class From>
  static MMCL_INLINE Float load_first(const From* from, std::size_t lanes) {
    return {R::load_first(from, lanes, 0), R::load_first(from + half, lanes, half)};
  }
  static MMCL_INLINE void store_first(Scalar* to, Float a, std::size_t lanes) {
    R::store_first(to, a.low, lanes, 0);
    R::store_first(to + half, a.high, lanes, half);
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
  static MMCL_INLINE Mask first(std::size_t lanes) {
    return {R::first(lanes, 0), R::first(lanes, half)};
  }
  static MMCL_INLINE std::size_t count(Mask m) {
    return static_cast<std::size_t>(__builtin_popcount(set_lanes(m)));
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
      to[written++] = start + __builtin_ctz(left);
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

 private:
  static MMCL_INLINE std::uint32_t set_lanes(Mask m) {
    return R::set_lanes(m.low) | R::set_lanes(m.high) << half;
  }
};

// Units of a tile or strip: their sums stay in the 16 registers, two for each unit.
struct Avx2Floats : Avx2Pair<Avx2Float8> {
  static constexpr int score_rows = 3, score_units = 2, change_units = 4, update_units = 4;
  static constexpr std::size_t dot_rows = 2, dot_columns = 2;

  // An 8 x 8 block at a time: halves of two rows side by side, then 4 x 4 transposes within them.
  static MMCL_INLINE void transpose(const float* from, std::size_t stride, float* to,
                                    std::size_t to_stride) {
    for (std::size_t first = 0; first < 16; first += 8) {
      for (std::size_t column = 0; column < 16; column += 4) {
        __m256 row[4];
#pragma GCC unroll 4
        for (std::size_t k = 0; k < 4; ++k) {
          const float* const at = from + (first + k) * stride + column;
          row[k] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)),
                                        _mm_loadu_ps(at + 4 * stride), 1);
        }
        const __m256 a = _mm256_unpacklo_ps(row[0], row[1]), b = _mm256_unpackhi_ps(row[0], row[1]);
        const __m256 c = _mm256_unpacklo_ps(row[2], row[3]), d = _mm256_unpackhi_ps(row[2], row[3]);
        const __m256 columns[4] = {_mm256_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm256_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2)),
                                   _mm256_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm256_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2))};
#pragma GCC unroll 4
        for (std::size_t k = 0; k < 4; ++k) {
          _mm256_storeu_ps(to + (column + k) * to_stride + first, columns[k]);
        }
      }
    }
  }
};

struct Avx2Doubles : Avx2Pair<Avx2Double4> {
  static constexpr int combine_units = 6, gram_rows = 4, gram_units = 1, factor_units = 1;
};

}  // namespace
}  // namespace mmcl

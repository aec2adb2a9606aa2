// Vectors as arrays and plain loops, left to the compiler: the wrapper `V`, `L` and `D` (units.h)
// of every machine.
#pragma once

#include <cmath>
#include <cstring>

#include "plain.h"
#include "softmax_constants.h"
#include "units.h"

namespace mmcl {
namespace {

template <class T, int kWidth>
struct PlainVector {
  using Scalar = T;
  struct Float {
    T lane[kWidth];
  };
  struct Mask {
    bool lane[kWidth];
  };
  static constexpr int width = kWidth;

  template <class To = Float, class F>
  static MMCL_INLINE To each(F f) {
    To out;
    for (int i = 0; i < kWidth; ++i) out.lane[i] = f(i);
    return out;
  }

  static MMCL_INLINE Float broadcast(T x) {
    return each([=](int) { return x; });
  }
  static MMCL_INLINE Float load(const T* from) {
    return each([=](int i) { return from[i]; });
  }
  static MMCL_INLINE void store(T* to, const Float& a) { std::memcpy(to, a.lane, sizeof a.lane); }
  template <class From>
  static MMCL_INLINE Float load_first(const From* from, std::size_t lanes) {
    return each([=](int i) { return static_cast<std::size_t>(i) < lanes ? T{from[i]} : T{0}; });
  }
  static MMCL_INLINE void store_first(T* to, const Float& a, std::size_t lanes) {
    for (std::size_t i = 0; i < kWidth && i < lanes; ++i) to[i] = a.lane[i];
  }
  static MMCL_INLINE Float add(const Float& a, const Float& b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static MMCL_INLINE Float subtract(const Float& a, const Float& b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static MMCL_INLINE Float mul(const Float& a, const Float& b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static MMCL_INLINE Float divide(const Float& a, const Float& b) {
    return each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static MMCL_INLINE Float fma(const Float& a, const Float& b, const Float& c) {
    return each([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static MMCL_INLINE Float sqrt(const Float& a) {
    return each([&](int i) { return std::sqrt(a.lane[i]); });
  }
  static MMCL_INLINE Float maximum(const Float& a, const Float& b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static MMCL_INLINE Float minimum(const Float& a, const Float& b) {
    return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }

  static MMCL_INLINE Mask less(const Float& a, const Float& b) {
    return each<Mask>([&](int i) { return a.lane[i] < b.lane[i]; });
  }
  static MMCL_INLINE Mask both(const Mask& a, const Mask& b) {
    return each<Mask>([&](int i) { return a.lane[i] && b.lane[i]; });
  }
  static MMCL_INLINE Mask first(std::size_t lanes) {
    return each<Mask>([=](int i) { return static_cast<std::size_t>(i) < lanes; });
  }
  static MMCL_INLINE std::size_t count(const Mask& m) {
    std::size_t set = 0;
    for (const bool lane : m.lane) set += lane ? 1 : 0;
    return set;
  }
  static MMCL_INLINE Float select(const Mask& m, const Float& a, const Float& b) {
    return each([&](int i) { return m.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static MMCL_INLINE Float keep(const Mask& m, const Float& a) { return select(m, a, Float{}); }
  static MMCL_INLINE Float drop(const Mask& m, const Float& a) { return select(m, Float{}, a); }
  static MMCL_INLINE std::size_t append(const Mask& m, std::int32_t start, std::int32_t* to) {
    std::size_t written = 0;
    for (int i = 0; i < kWidth; ++i) {
      if (m.lane[i]) to[written++] = start + i;
    }
    return written;
  }

  static MMCL_INLINE Float two_to_the(const Float& shifted) {
    return each([&](int i) { return two_to_the(shifted.lane[i]); });
  }
  static MMCL_INLINE void transpose(const T* from, std::size_t stride, T* to,
                                    std::size_t to_stride) {
    for (std::size_t i = 0; i < kWidth; ++i) {
      for (std::size_t k = 0; k < kWidth; ++k) to[k * to_stride + i] = from[i * stride + k];
    }
  }

 private:
  static MMCL_INLINE float two_to_the(float shifted) {
    return float_of_bits((bits_of_float(shifted) << 23) + (127u << 23));
  }
  static MMCL_INLINE double two_to_the(double shifted) {
    std::uint64_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 52) + (1023ull << 52);
    std::memcpy(&shifted, &bits, sizeof bits);
    return shifted;
  }
};

struct PlainFloats : PlainVector<float, kUnit> {
  static constexpr int score_rows = 2, score_units = 2, change_units = 2, update_units = 2;
  static constexpr std::size_t dot_rows = 2, dot_columns = 2;

  using PlainVector::store;
  template <bool kStream>
  static MMCL_INLINE void store(float* to, const Float& a) {
    store(to, a);
  }
  static MMCL_INLINE Float load_padded(const float* from, std::size_t lanes, float rest) {
    return each([=](int i) { return static_cast<std::size_t>(i) < lanes ? from[i] : rest; });
  }
  template <class F>
  static MMCL_INLINE float fold(Float a, F f) {
    for (int half = width / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) a.lane[i] = f(a.lane[i], a.lane[i + half]);
    }
    return a.lane[0];
  }
  static MMCL_INLINE float sum(const Float& a) {
    return fold(a, [](float x, float y) { return x + y; });
  }
  static MMCL_INLINE float largest(const Float& a) {
    return fold(a, [](float x, float y) { return x > y ? x : y; });
  }
  static MMCL_INLINE void split(const Float& u, Float& exponent, Float& mantissa) {
    for (int i = 0; i < width; ++i) {
      const std::uint32_t b = bits_of_float(u.lane[i]) - static_cast<std::uint32_t>(kLogBits);
      exponent.lane[i] = static_cast<float>(static_cast<std::int32_t>(b) >> 23);
      mantissa.lane[i] = float_of_bits((b & kMantissa) + kLogBits);
    }
  }
  struct Nearest {
    Float number, half_power;
  };
  static MMCL_INLINE Nearest nearest(const Float& x) {
    const Float shift = broadcast(kRoundToExponent), shifted = add(x, shift);
    return {subtract(shifted, shift),
            each([&](int i) { return float_of_bits(bits_of_float(shifted.lane[i]) << 23); })};
  }
  // a * 2^n, but 0 where x < limit.
  static MMCL_INLINE Float scale_unless_less(const Float& a, const Nearest& n, const Float& x,
                                             const Float& limit) {
    const Float half = mul(a, n.half_power);
    return drop(less(x, limit), add(half, half));
  }
  static MMCL_INLINE Float without_subnormal(const Float& a) {
    return each([&](int i) { return std::fabs(a.lane[i]) < 0x1p-126f ? 0.0f : a.lane[i]; });
  }
};

struct PlainDoubles : PlainVector<double, kDoubles> {
  static constexpr int combine_units = 2, gram_rows = 2, gram_units = 2, factor_units = 2;
};

}  // namespace
}  // namespace mmcl

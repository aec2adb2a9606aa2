// NEON of ARM64: registers of four floats and of two doubles; selections by bit logic.
#pragma once

#include <arm_neon.h>

#include "constants.h"
#include "softmax_constants.h"
#include "units.h"

namespace mmcl {
namespace {

// How many of `lanes` lanes of a unit are in a register of `width` that begins at lane `begin`.
static MMCL_INLINE std::size_t lanes_from(std::size_t begin, std::size_t lanes, std::size_t width) {
  const std::size_t left = lanes > begin ? lanes - begin : 0;
  return left < width ? left : width;
}

struct NeonFloat4 {
  using Scalar = float;
  using Int = int32x4_t;
  using Float = float32x4_t;
  using Mask = uint32x4_t;
  static constexpr int width = 4;
  static constexpr bool packed_philox = true;
  static constexpr int gram_rows = 4, gram_columns = 6;  // 24 of 32 registers hold sums

  struct Product {
    Int high, low;
  };
  static MMCL_INLINE Product product(Int a, Int b) {
    const uint32x4_t x = vreinterpretq_u32_s32(a), y = vreinterpretq_u32_s32(b);
    const auto lower = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(x), vget_low_u32(y)));
    const auto upper = vreinterpretq_u32_u64(vmull_high_u32(x, y));
    return {vreinterpretq_s32_u32(vuzp2q_u32(lower, upper)),
            vreinterpretq_s32_u32(vuzp1q_u32(lower, upper))};
  }
  static MMCL_INLINE Int lane_numbers() {
    static constexpr std::int32_t kNumbers[] = {0, 1, 2, 3};
    return vld1q_s32(kNumbers);
  }

  static MMCL_INLINE Int integer(std::int32_t x) { return vdupq_n_s32(x); }
  static MMCL_INLINE Int add(Int a, Int b) { return vaddq_s32(a, b); }
  static MMCL_INLINE Int subtract(Int a, Int b) { return vsubq_s32(a, b); }
  static MMCL_INLINE Int bit_and(Int a, Int b) { return vandq_s32(a, b); }
  static MMCL_INLINE Int bit_xor(Int a, Int b) { return veorq_s32(a, b); }
  template <int kBits>
  static MMCL_INLINE Int shift_right(Int a) {
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), kBits));
  }
  template <int kBits>
  static MMCL_INLINE Int shift_left(Int a) {
    return vshlq_n_s32(a, kBits);
  }
  static MMCL_INLINE Int shift_left_2_or_2(Int a) {
    return vorrq_s32(shift_left<2>(a), integer(2));
  }
  static MMCL_INLINE Mask greater(Int a, Int b) { return vcgtq_s32(a, b); }
  static MMCL_INLINE Int xor_where(Mask m, Int a, Int b) {
    return bit_xor(a, bit_and(vreinterpretq_s32_u32(m), b));
  }

  static MMCL_INLINE Float broadcast(float x) { return vdupq_n_f32(x); }
  static MMCL_INLINE Float add(Float a, Float b) { return vaddq_f32(a, b); }
  static MMCL_INLINE Float subtract(Float a, Float b) { return vsubq_f32(a, b); }
  static MMCL_INLINE Float load(const float* from) { return vld1q_f32(from); }
  static MMCL_INLINE float sum(Float a) {
    const float32x2_t two = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }
  // The larger or smaller element; b where either is not-a-number, which FMAX and FMIN would keep.
  static MMCL_INLINE Float maximum(Float a, Float b) { return select(vcgtq_f32(a, b), a, b); }
  static MMCL_INLINE Float minimum(Float a, Float b) { return select(vcltq_f32(a, b), a, b); }
  static MMCL_INLINE float largest(Float a) {
    const Float two = maximum(a, vextq_f32(a, a, 2));
    return vgetq_lane_f32(maximum(two, vextq_f32(two, two, 1)), 0);
  }
  static MMCL_INLINE Mask less(Float a, Float b) { return vcltq_f32(a, b); }
  static MMCL_INLINE Mask both(Mask a, Mask b) { return vandq_u32(a, b); }
  // A register that holds lanes begin, begin + 1, ... of a unit: the lanes before `lanes`.
  static MMCL_INLINE Mask first(std::size_t lanes, int begin = 0) {
    const Int limit = integer(lanes > 16 ? 16 : static_cast<std::int32_t>(lanes));
    return greater(limit, add(integer(begin), lane_numbers()));
  }
  static MMCL_INLINE std::uint32_t set_lanes(Mask m) {
    static constexpr std::uint32_t kBits[] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(m, vld1q_u32(kBits)));
  }
  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes, int begin) {
    const std::size_t here = lanes_from(static_cast<std::size_t>(begin), lanes, width);
    return here == width ? load(from) : load_padded(from, here, 0.0f);
  }
  static MMCL_INLINE Float load_padded(const float* from, std::size_t lanes, float rest) {
    float copy[width] = {rest, rest, rest, rest};
    for (std::size_t i = 0; i < width && i < lanes; ++i) copy[i] = from[i];
    return load(copy);
  }
  static MMCL_INLINE void store(float* to, Float a) { vst1q_f32(to, a); }
  static MMCL_INLINE void store_first(float* to, Float a, std::size_t lanes, int begin = 0) {
    const std::size_t here = lanes_from(static_cast<std::size_t>(begin), lanes, width);
    if (here == width) return store(to, a);
    float copy[width];
    store(copy, a);
    for (std::size_t i = 0; i < width && i < here; ++i) to[i] = copy[i];
  }
  struct Nearest {
    Float number, half_power;
  };
  static MMCL_INLINE Nearest nearest(Float x) {
    const Float shift = broadcast(kRoundToExponent), shifted = add(x, shift);
    return {subtract(shifted, shift), as_float(shift_left<23>(bits(shifted)))};
  }
  // a * 2^n, but 0 where x < limit. Products, where additions to the exponent would do, because
  // they keep not-a-number.
  static MMCL_INLINE Float scale_unless_less(Float a, Nearest n, Float x, Float limit) {
    const Float half = mul(a, n.half_power);
    return drop(less(x, limit), add(half, half));
  }
  // Subnormal elements and -0 become +0.
  static MMCL_INLINE Float without_subnormal(Float a) {
    return drop(vcaltq_f32(a, broadcast(0x1p-126f)), a);
  }
  static MMCL_INLINE Float divide(Float a, Float b) { return vdivq_f32(a, b); }
  static MMCL_INLINE Float mul(Float a, Float b) { return vmulq_f32(a, b); }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
  static MMCL_INLINE Float sqrt(Float a) { return vsqrtq_f32(a); }
  static MMCL_INLINE Float to_float(Int a) { return vcvtq_f32_s32(a); }
  static MMCL_INLINE Int bits(Float a) { return vreinterpretq_s32_f32(a); }
  static MMCL_INLINE Float as_float(Int a) { return vreinterpretq_f32_s32(a); }
  static constexpr std::int32_t exponent_bias = 0;
  static MMCL_INLINE Float exponent(Int b) { return to_float(vshrq_n_s32(b, 23)); }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) { return vbslq_f32(m, a, b); }
  static MMCL_INLINE Float keep(Mask m, Float a) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), m));
  }
  static MMCL_INLINE Float drop(Mask m, Float a) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), m));
  }
  // Where bit 30 of b is set: (x, y) becomes (-y, x).
  static MMCL_INLINE void turn_where_bit_30(Int b, Float& x, Float& y) {
    const Mask turn = vtstq_s32(b, integer(0x40000000));
    const Float old = x;
    x = select(turn, vnegq_f32(y), x);
    y = select(turn, old, y);
  }
  static MMCL_INLINE Float copy_sign_bit(Float a, Int b) {  // for a > 0
    return vbslq_f32(vdupq_n_u32(0x80000000u), as_float(b), a);
  }

  // Cached stores whatever `kStream`: NEON has no others that intrinsics reach.
  template <bool kStream>
  static MMCL_INLINE void store(float* out, Float a) {
    store(out, a);
  }
  template <bool kStream>
  static MMCL_INLINE void store(std::uint32_t* out, Int a) {
    vst1q_u32(out, vreinterpretq_u32_s32(a));
  }
  template <bool kStream>
  static MMCL_INLINE void store_bf16(std::uint16_t* out, Float a) {
    const Int odd = bit_and(shift_right<16>(bits(a)), integer(1));
    const Int rounded = add(bits(a), add(odd, integer(0x7fff)));
    vst1_u16(out, vshrn_n_u32(vreinterpretq_u32_s32(rounded), 16));
  }
  template <bool kStream>
  static MMCL_INLINE void store_scaled(double* out, Float a, double scale) {
    const float64x2_t s = vdupq_n_f64(scale);
    vst1q_f64(out, vmulq_f64(vcvt_f64_f32(vget_low_f32(a)), s));
    vst1q_f64(out + 2, vmulq_f64(vcvt_high_f64_f32(a), s));
  }

  static MMCL_INLINE Float two_to_the(Float shifted) {
    return as_float(add(shift_left<23>(bits(shifted)), integer(127 << 23)));
  }
  static MMCL_INLINE void split(Float u, Float& exponent, Float& mantissa) {
    const Int b = subtract(bits(u), integer(kLogBits));
    exponent = to_float(vshrq_n_s32(b, 23));
    mantissa = as_float(add(bit_and(b, integer(kMantissa)), integer(kLogBits)));
  }
};

struct NeonDouble2 {
  using Scalar = double;
  using Float = float64x2_t;
  using Mask = uint64x2_t;
  static constexpr int width = 2;

  static MMCL_INLINE Float broadcast(double x) { return vdupq_n_f64(x); }
  static MMCL_INLINE Float load(const double* from) { return vld1q_f64(from); }
  static MMCL_INLINE void store(double* to, Float a) { vst1q_f64(to, a); }
  // A register that holds lanes begin, begin + 1, ... of a unit: the lanes before `lanes`.
  static MMCL_INLINE Float load_first(const double* from, std::size_t lanes, int begin) {
    const std::size_t here = lanes_from(static_cast<std::size_t>(begin), lanes, width);
    if (here == width) return load(from);
    return vcombine_f64(here == 1 ? vld1_f64(from) : vdup_n_f64(0.0), vdup_n_f64(0.0));
  }
  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes, int begin) {
    const std::size_t here = lanes_from(static_cast<std::size_t>(begin), lanes, width);
    if (here == width) return vcvt_f64_f32(vld1_f32(from));
    const double only = here == 1 ? double{*from} : 0.0;
    return vcombine_f64(vdup_n_f64(only), vdup_n_f64(0.0));
  }
  static MMCL_INLINE Float add(Float a, Float b) { return vaddq_f64(a, b); }
  static MMCL_INLINE Float subtract(Float a, Float b) { return vsubq_f64(a, b); }
  static MMCL_INLINE Float mul(Float a, Float b) { return vmulq_f64(a, b); }
  static MMCL_INLINE Float divide(Float a, Float b) { return vdivq_f64(a, b); }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) { return vfmaq_f64(c, a, b); }
  static MMCL_INLINE Float sqrt(Float a) { return vsqrtq_f64(a); }
  // b where either is not-a-number.
  static MMCL_INLINE Float maximum(Float a, Float b) { return select(vcgtq_f64(a, b), a, b); }
  static MMCL_INLINE Float minimum(Float a, Float b) { return select(vcltq_f64(a, b), a, b); }
  static MMCL_INLINE Mask less(Float a, Float b) { return vcltq_f64(a, b); }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) { return vbslq_f64(m, a, b); }
  static MMCL_INLINE Float drop(Mask m, Float a) {
    return vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(a), m));
  }
  static MMCL_INLINE Float two_to_the(Float shifted) {
    const int64x2_t exponent = vshlq_n_s64(vreinterpretq_s64_f64(shifted), 52);
    return vreinterpretq_f64_s64(vaddq_s64(exponent, vdupq_n_s64(std::int64_t{1023} << 52)));
  }
};

}  // namespace
}  // namespace mmcl

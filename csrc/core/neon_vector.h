// Units (units.h) as four NEON registers.
#pragma once

#include <cstring>

#include "neon_registers.h"
#include "pair.h"

namespace mmcl {
namespace {

// Units of a tile or strip: their sums stay in the 32 registers, four for each unit.
struct NeonFloats : Pair<Pair<NeonFloat4>> {
  static constexpr int score_rows = 3, score_units = 2, change_units = 4, update_units = 4;
  static constexpr std::size_t dot_rows = 2, dot_columns = 2;

  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes) {
    if (lanes >= kUnit) return load(from);
    float copy[kUnit] = {};
    std::memcpy(copy, from, lanes * sizeof(float));
    return load(copy);
  }
  static MMCL_INLINE void store_first(float* to, Float a, std::size_t lanes) {
    if (lanes >= kUnit) return store(to, a);
    float copy[kUnit];
    store(copy, a);
    std::memcpy(to, copy, lanes * sizeof(float));
  }

  // A lane of -1 for each that is set.
  static MMCL_INLINE std::size_t count(Mask m) {
    const uint32x4_t low = vaddq_u32(m.low.low, m.low.high);
    const uint32x4_t high = vaddq_u32(m.high.low, m.high.high);
    return 0u - vaddvq_u32(vaddq_u32(low, high));
  }
  static MMCL_INLINE std::size_t append(Mask m, std::int32_t start, std::int32_t* to) {
    std::size_t written = 0;
    for (std::uint32_t left = set_lanes(m); left != 0; left &= left - 1) {
      to[written++] = start + lowest_bit(left);
    }
    return written;
  }

  // 4 x 4 blocks.
  static MMCL_INLINE void transpose(const float* from, std::size_t stride, float* to,
                                    std::size_t to_stride) {
    for (std::size_t first = 0; first < kUnit; first += 4) {
      for (std::size_t column = 0; column < kUnit; column += 4) {
        float32x4_t row[4];
        MMCL_UNROLL(4)
        for (std::size_t k = 0; k < 4; ++k) {
          row[k] = vld1q_f32(from + (first + k) * stride + column);
        }
        const auto a = vreinterpretq_f64_f32(vtrn1q_f32(row[0], row[1]));
        const auto b = vreinterpretq_f64_f32(vtrn2q_f32(row[0], row[1]));
        const auto c = vreinterpretq_f64_f32(vtrn1q_f32(row[2], row[3]));
        const auto d = vreinterpretq_f64_f32(vtrn2q_f32(row[2], row[3]));
        const float64x2_t columns[4] = {vtrn1q_f64(a, c), vtrn1q_f64(b, d), vtrn2q_f64(a, c),
                                        vtrn2q_f64(b, d)};
        MMCL_UNROLL(4)
        for (std::size_t k = 0; k < 4; ++k) {
          vst1q_f32(to + (column + k) * to_stride + first, vreinterpretq_f32_f64(columns[k]));
        }
      }
    }
  }

 private:
  // Lane i as bit i: sixteen words narrowed to bytes, of which each keeps a bit of its own.
  static MMCL_INLINE std::uint32_t set_lanes(Mask m) {
    static constexpr std::uint8_t kBits[] = {1, 2, 4, 8, 16, 32, 64, 128,
                                             1, 2, 4, 8, 16, 32, 64, 128};
    const auto low =
        vuzp1q_u16(vreinterpretq_u16_u32(m.low.low), vreinterpretq_u16_u32(m.low.high));
    const auto high =
        vuzp1q_u16(vreinterpretq_u16_u32(m.high.low), vreinterpretq_u16_u32(m.high.high));
    const uint8x16_t bytes = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
    const uint8x16_t set = vandq_u8(bytes, vld1q_u8(kBits));
    return vaddv_u8(vget_low_u8(set)) | std::uint32_t{vaddv_u8(vget_high_u8(set))} << 8;
  }
};

struct NeonDoubles : Pair<Pair<NeonDouble2>> {
  static constexpr int combine_units = 6, gram_rows = 4, gram_units = 1, factor_units = 1;
};

}  // namespace
}  // namespace mmcl

// One block and one word pair in plain C++: the transform of docs/stream.md, step by step.
//
// All functions are static: each file that includes this header has its own copy, compiled for its
// own instruction set.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "constants.h"

namespace mmcl {

static inline void philox4x32(std::uint32_t c[4], std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{c[0]} * kPhiloxM0;
    const std::uint64_t p1 = std::uint64_t{c[2]} * kPhiloxM1;
    c[0] = static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0;
    c[1] = static_cast<std::uint32_t>(p1);
    c[2] = static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1;
    c[3] = static_cast<std::uint32_t>(p0);
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
}

static inline float float_of_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

static inline std::uint32_t bits_of_float(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float radius(std::uint32_t a) {
  const auto upper = static_cast<std::int32_t>(a >> 1);
  const bool near_one = upper > kLogSplit;
  const std::int32_t v = near_one ? upper ^ 0x7fffffff : upper;
  const float f = static_cast<float>(v) + 0.5f;
  const std::int32_t b = static_cast<std::int32_t>(bits_of_float(f)) - kLogBits;
  const float exponent = static_cast<float>((b >> 23) - 31) * kMinus2Ln2;
  const float mantissa = float_of_bits(static_cast<std::uint32_t>((b & kMantissa) + kLogBits));
  const float t = near_one ? f * -0x1p-31f : mantissa - 1.0f;
  float p = kLog[kLogTerms - 1];
  for (int k = kLogTerms - 2; k >= 0; --k) p = std::fma(p, t, kLog[k]);
  return std::sqrt(std::fma(t, p, near_one ? 0.0f : exponent));
}

// Replaces the words (a, b) by two standard normals: z0 of the even word, z1 of the odd one.
static inline void box_muller(std::uint32_t a, std::uint32_t b, float& z0, float& z1) {
  const float x = static_cast<float>(static_cast<std::int32_t>((b << 2) | 2)) * 0x1p-31f;
  const float x2 = x * x;
  float s = kSin[kSinTerms - 1], c = kCos[kCosTerms - 1];
  for (int k = kSinTerms - 2; k >= 0; --k) s = std::fma(s, x2, kSin[k]);
  for (int k = kCosTerms - 2; k >= 0; --k) c = std::fma(c, x2, kCos[k]);
  s *= x;
  const bool swap = (b & 0x40000000u) != 0;
  const float first = swap ? s : c, second = swap ? c : s;
  const float r = radius(a);
  z0 = r * float_of_bits(bits_of_float(first) ^ ((b ^ (b << 1)) & 0x80000000u));
  z1 = r * float_of_bits(bits_of_float(second) ^ (b & 0x80000000u));
}

// Round to nearest even. Infinity (an overflowing scale) stays; not-a-number cannot occur.
static inline std::uint16_t bf16_of_float(float x) {
  const std::uint32_t bits = bits_of_float(x);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace mmcl

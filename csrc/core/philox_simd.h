// Philox4x32-10, one round at a time, over a wrapper `V` (units.h).
#pragma once

#include <type_traits>

#include "constants.h"
#include "target.h"
#include "units.h"

namespace mmcl {
namespace simd {

// Keys, and what the first four rounds make of the counter words that are constant along a row.
struct PhiloxRow {
  std::uint32_t keys0[kRounds], keys1[kRounds];
  std::uint32_t second_c2, third_c0, third_c2, fourth_c2;

  // `flip` is added bit by bit to words 0 and 2: it costs nothing, as part of the last round's
  // keys.
  MMCL_INLINE PhiloxRow(const Row& row, std::uint32_t flip) {
    std::uint32_t k0 = row.key0, k1 = row.key1;
    for (int i = 0; i < kRounds; ++i, k0 += kPhiloxW0, k1 += kPhiloxW1) {
      const std::uint32_t last = i == kRounds - 1 ? flip : 0;
      keys0[i] = k0 ^ last;
      keys1[i] = k1 ^ last;
    }
    const std::uint64_t p1 = std::uint64_t{row.run} * kPhiloxM1;
    const std::uint32_t c0 = high(p1) ^ row.sample ^ keys0[0];
    const std::uint64_t p0 = std::uint64_t{c0} * kPhiloxM0;
    second_c2 = row.tag_epoch ^ keys1[0];
    third_c0 = low(p1) ^ keys0[1];
    third_c2 = high(p0) ^ keys1[1];
    fourth_c2 = low(p0) ^ keys1[2];
  }

 private:
  static MMCL_INLINE std::uint32_t low(std::uint64_t p) { return static_cast<std::uint32_t>(p); }
  static MMCL_INLINE std::uint32_t high(std::uint64_t p) { return low(p >> 32); }
};

// For instruction sets that multiply the low halves of 64-bit lanes: two vectors of blocks.
//
// Each 32-bit word sits in the low half of a 64-bit lane, whose high half may hold anything: the
// widening multiply ignores it, so a round needs no masks and no packing. Vector 0 has the blocks
// of the even places, vector 1 of the odd ones; they are interleaved once at the end.
template <class V>
class WidePhilox {
 public:
  using Wide = typename V::Wide;
  using Int = typename V::Int;

  MMCL_INLINE WidePhilox(const Row& row, std::uint32_t first_tile, std::uint32_t flip) {
    const PhiloxRow constants(row, flip);
    for (int i = 0; i < kRounds; ++i) {
      k0_[i] = V::wide(constants.keys0[i]);
      k1_[i] = V::wide(constants.keys1[i]);
    }
    second_c2_ = V::wide(constants.second_c2);
    third_c0_ = V::wide(constants.third_c0);
    third_c2_ = V::wide(constants.third_c2);
    fourth_c2_ = V::wide(constants.fourth_c2);
    const Wide start = V::wide(std::uint64_t{first_tile} * kLanes * kPhiloxM0);
    product_[0] = V::wide_add(start, V::mul(V::even_lanes(), V::wide(kPhiloxM0)));
    product_[1] = V::wide_add(start, V::mul(V::odd_lanes(), V::wide(kPhiloxM0)));
  }

  // Rounds one to three of the next V::width blocks. Of the two products of round one only
  // block * M0 varies along a row, of round two only the other: both rounds are halved.
  MMCL_INLINE void begin() {
    const Wide m0 = V::wide(kPhiloxM0), m1 = V::wide(kPhiloxM1);
    const Wide step = V::wide(std::uint64_t{V::width} * kPhiloxM0);
    MMCL_UNROLL(2)
    for (int n = 0; n < 2; ++n) {
      const Wide p1 = V::mul(V::exclusive_or(V::high(product_[n]), second_c2_), m1);
      const Wide c0 = V::exclusive_or(V::high(p1), third_c0_);
      const Wide c2 = V::exclusive_or(product_[n], third_c2_);
      const Wide q0 = V::mul(c0, m0), q1 = V::mul(c2, m1);
      c_[0][n] = V::exclusive_or(V::high(q1), p1, k0_[2]);
      c_[1][n] = q1;
      c_[2][n] = V::exclusive_or(V::high(q0), fourth_c2_);
      c_[3][n] = q0;
      product_[n] = V::wide_add(product_[n], step);
    }
    round_ = 3;
  }

  // One of the six rounds that follow; the last is part of finish().
  MMCL_INLINE void next() {
    const Wide m0 = V::wide(kPhiloxM0), m1 = V::wide(kPhiloxM1);
    MMCL_UNROLL(2)
    for (int n = 0; n < 2; ++n) {
      const Wide p0 = V::mul(c_[0][n], m0), p1 = V::mul(c_[2][n], m1);
      c_[0][n] = V::exclusive_or(V::high(p1), c_[1][n], k0_[round_]);
      c_[1][n] = p1;
      c_[2][n] = V::exclusive_or(V::high(p0), c_[3][n], k1_[round_]);
      c_[3][n] = p0;
    }
    ++round_;
  }

  // The last round, on words interleaved on the way: quicker than after it.
  MMCL_INLINE void finish(Int (&words)[4]) {
    MMCL_UNROLL(8)
    while (round_ < kRounds - 1) next();
    const Wide m0 = V::wide(kPhiloxM0), m1 = V::wide(kPhiloxM1);
    const Wide p0[2] = {V::mul(c_[0][0], m0), V::mul(c_[0][1], m0)};
    const Wide p1[2] = {V::mul(c_[2][0], m1), V::mul(c_[2][1], m1)};
    words[0] =
        V::exclusive_or(V::pack_high(p1[0], p1[1]), V::pack(c_[1][0], c_[1][1]), k0_[round_]);
    words[1] = V::pack(p1[0], p1[1]);
    words[2] =
        V::exclusive_or(V::pack_high(p0[0], p0[1]), V::pack(c_[3][0], c_[3][1]), k1_[round_]);
    words[3] = V::pack(p0[0], p0[1]);
  }

 private:
  Wide second_c2_, third_c0_, third_c2_, fourth_c2_;
  Wide k0_[kRounds], k1_[kRounds];
  Wide product_[2];  // block * M0, the first product of all
  Wide c_[4][2];
  int round_ = 0;
};

// For instruction sets that multiply packed words and then separate the products' halves: one
// vector of blocks, whose 32-bit words fill its lanes.
template <class V>
class PackedPhilox {
 public:
  using Int = typename V::Int;

  MMCL_INLINE PackedPhilox(const Row& row, std::uint32_t first_tile, std::uint32_t flip) {
    const PhiloxRow constants(row, flip);
    for (int i = 0; i < kRounds; ++i) {
      k0_[i] = integer(constants.keys0[i]);
      k1_[i] = integer(constants.keys1[i]);
    }
    second_c2_ = integer(constants.second_c2);
    third_c0_ = integer(constants.third_c0);
    third_c2_ = integer(constants.third_c2);
    fourth_c2_ = integer(constants.fourth_c2);
    block_ = V::add(integer(first_tile * kLanes), V::lane_numbers());
  }

  // As of WidePhilox.
  MMCL_INLINE void begin() {
    const Int m0 = integer(kPhiloxM0), m1 = integer(kPhiloxM1);
    const auto p0 = V::product(block_, m0);
    const auto p1 = V::product(V::bit_xor(p0.high, second_c2_), m1);
    const auto q0 = V::product(V::bit_xor(p1.high, third_c0_), m0);
    const auto q1 = V::product(V::bit_xor(p0.low, third_c2_), m1);
    c_[0] = V::bit_xor(q1.high, V::bit_xor(p1.low, k0_[2]));
    c_[1] = q1.low;
    c_[2] = V::bit_xor(q0.high, fourth_c2_);
    c_[3] = q0.low;
    block_ = V::add(block_, integer(V::width));
    round_ = 3;
  }

  MMCL_INLINE void next() {
    const auto p0 = V::product(c_[0], integer(kPhiloxM0));
    const auto p1 = V::product(c_[2], integer(kPhiloxM1));
    c_[0] = V::bit_xor(p1.high, V::bit_xor(c_[1], k0_[round_]));
    c_[1] = p1.low;
    c_[2] = V::bit_xor(p0.high, V::bit_xor(c_[3], k1_[round_]));
    c_[3] = p0.low;
    ++round_;
  }

  MMCL_INLINE void finish(Int (&words)[4]) {
    MMCL_UNROLL(8)
    while (round_ < kRounds) next();
    MMCL_UNROLL(4)
    for (int k = 0; k < 4; ++k) words[k] = c_[k];
  }

 private:
  static MMCL_INLINE Int integer(std::uint32_t x) {
    return V::integer(static_cast<std::int32_t>(x));
  }

  Int second_c2_, third_c0_, third_c2_, fourth_c2_;
  Int k0_[kRounds], k1_[kRounds];
  Int block_;
  Int c_[4];
  int round_ = 0;
};

// The one that is quicker with the instruction set of `V`.
template <class V>
using Philox = std::conditional_t<V::packed_philox, PackedPhilox<V>, WidePhilox<V>>;

}  // namespace simd
}  // namespace mmcl

// Philox4x32-10 on two vectors of blocks, one round at a time, over a wrapper `V` (units.h).
//
// Each 32-bit word sits in the low half of a 64-bit lane, whose high half may hold anything: the
// widening multiply ignores it, so a round needs no masks and no packing. Vector 0 has the blocks
// of the even places, vector 1 of the odd ones; they are interleaved once at the end.
#pragma once

#include "constants.h"
#include "target.h"
#include "units.h"

namespace mmcl {
namespace simd {

template <class V>
class Philox {
 public:
  using Wide = typename V::Wide;
  using Int = typename V::Int;

  // `flip` is added bit by bit to words 0 and 2: it costs nothing, as part of the last round's
  // keys.
  MMCL_INLINE Philox(const Row& row, std::uint32_t first_tile, std::uint32_t flip = 0) {
    std::uint32_t k0 = row.key0, k1 = row.key1;
    std::uint32_t keys0[kRounds], keys1[kRounds];
    for (int i = 0; i < kRounds; ++i, k0 += kPhiloxW0, k1 += kPhiloxW1) {
      const std::uint32_t last = i == kRounds - 1 ? flip : 0;
      keys0[i] = k0 ^ last;
      keys1[i] = k1 ^ last;
      k0_[i] = V::wide(keys0[i]);
      k1_[i] = V::wide(keys1[i]);
    }
    const std::uint64_t p1 = std::uint64_t{row.run} * kPhiloxM1;
    const std::uint32_t c0 = high(p1) ^ row.sample ^ keys0[0];
    const std::uint64_t p0 = std::uint64_t{c0} * kPhiloxM0;
    second_c2_ = V::wide(row.tag_epoch ^ keys1[0]);
    third_c0_ = V::wide(low(p1) ^ keys0[1]);
    third_c2_ = V::wide(high(p0) ^ keys1[1]);
    fourth_c2_ = V::wide(low(p0) ^ keys1[2]);
    const Wide start = V::wide(std::uint64_t{first_tile} * kLanes * kPhiloxM0);
    product_[0] = V::wide_add(start, V::mul(V::even_lanes(), V::wide(kPhiloxM0)));
    product_[1] = V::wide_add(start, V::mul(V::odd_lanes(), V::wide(kPhiloxM0)));
  }

  // Rounds one to three of the next V::width blocks. Of the two products of round one only
  // block * M0 varies along a row, of round two only the other: both rounds are halved.
  MMCL_INLINE void begin() {
    const Wide m0 = V::wide(kPhiloxM0), m1 = V::wide(kPhiloxM1);
    const Wide step = V::wide(std::uint64_t{V::width} * kPhiloxM0);
#pragma GCC unroll 2
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
#pragma GCC unroll 2
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
#pragma GCC unroll 8
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
  static MMCL_INLINE std::uint32_t low(std::uint64_t p) { return static_cast<std::uint32_t>(p); }
  static MMCL_INLINE std::uint32_t high(std::uint64_t p) { return low(p >> 32); }

  Wide second_c2_, third_c0_, third_c2_, fourth_c2_;
  Wide k0_[kRounds], k1_[kRounds];
  Wide product_[2];  // block * M0, the first product of all
  Wide c_[4][2];
  int round_ = 0;
};

}  // namespace simd
}  // namespace mmcl

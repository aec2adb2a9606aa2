// The stream on vectors of any width, written once over a small wrapper `V` per instruction set.
//
// A wrapper gives V::width 32-bit lanes. Philox keeps each 32-bit word in the low half of a 64-bit
// lane, whose high half may hold anything: the widening multiply ignores it, so a round needs no
// masks and no shuffles, and words are packed once at the end ("even" and "odd" lanes apart).
// `V` must be a type of an unnamed namespace, so that no code made here is shared between files.
#pragma once

#include "constants.h"
#include "target.h"

#define MMCL_INLINE static inline __attribute__((always_inline))

namespace mmcl {
namespace simd {

// Philox state that does not depend on the block. Rounds one and two are halved by hand: of the
// two products of round one only block * M0 varies, of round two only the other.
template <class V>
struct Rounds {
  typename V::Wide second_c2, third_c0, third_c2, fourth_c2;
  typename V::Wide k0[kRounds], k1[kRounds];
};

template <class V>
MMCL_INLINE Rounds<V> prepare(const Row& row) {
  Rounds<V> r;
  std::uint32_t k0[kRounds], k1[kRounds];
  for (int i = 0; i < kRounds; ++i) {
    k0[i] = row.key0 + static_cast<std::uint32_t>(i) * kPhiloxW0;
    k1[i] = row.key1 + static_cast<std::uint32_t>(i) * kPhiloxW1;
    r.k0[i] = V::wide(k0[i]);
    r.k1[i] = V::wide(k1[i]);
  }
  const std::uint64_t p1 = std::uint64_t{row.run} * kPhiloxM1;
  const std::uint32_t c0 = static_cast<std::uint32_t>(p1 >> 32) ^ row.sample ^ k0[0];
  const std::uint64_t p0 = std::uint64_t{c0} * kPhiloxM0;
  r.second_c2 = V::wide(row.tag_epoch ^ k1[0]);
  r.third_c0 = V::wide(static_cast<std::uint32_t>(p1) ^ k0[1]);
  r.third_c2 = V::wide(static_cast<std::uint32_t>(p0 >> 32) ^ k1[1]);
  r.fourth_c2 = V::wide(static_cast<std::uint32_t>(p0) ^ k1[2]);
  return r;
}

// Ten rounds from p = block * M0, for `G` vectors of blocks at once.
template <class V, int G>
MMCL_INLINE void philox(const Rounds<V>& r, const typename V::Wide (&p)[G],
                        typename V::Wide (&c)[4][G]) {
  using Wide = typename V::Wide;
  const Wide m0 = V::wide(kPhiloxM0), m1 = V::wide(kPhiloxM1);
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) {
    const Wide p1 = V::mul(V::exclusive_or(V::high(p[g]), r.second_c2), m1);
    const Wide c0 = V::exclusive_or(V::high(p1), r.third_c0);
    const Wide q0 = V::mul(c0, m0), q1 = V::mul(V::exclusive_or(p[g], r.third_c2), m1);
    c[0][g] = V::exclusive_or(V::high(q1), p1, r.k0[2]);
    c[1][g] = q1;
    c[2][g] = V::exclusive_or(V::high(q0), r.fourth_c2);
    c[3][g] = q0;
  }
#pragma GCC unroll 8
  for (int round = 3; round < kRounds; ++round) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      const Wide p0 = V::mul(c[0][g], m0), p1 = V::mul(c[2][g], m1);
      c[0][g] = V::exclusive_or(V::high(p1), c[1][g], r.k0[round]);
      c[1][g] = p1;
      c[2][g] = V::exclusive_or(V::high(p0), c[3][g], r.k1[round]);
      c[3][g] = p0;
    }
  }
}

template <class V, int N>
MMCL_INLINE typename V::Float horner(const float (&coefficients)[N], typename V::Float x) {
  typename V::Float acc = V::broadcast(coefficients[N - 1]);
#pragma GCC unroll 8
  for (int k = N - 2; k >= 0; --k) acc = V::fma(acc, x, V::broadcast(coefficients[k]));
  return acc;
}

template <class V>
MMCL_INLINE typename V::Float radius(typename V::Int a) {
  using Float = typename V::Float;
  using Int = typename V::Int;
  const Int upper = V::template shift_right<1>(a);
  const auto near_one = V::greater(upper, V::integer(kLogSplit));
  const Int v = V::xor_where(near_one, upper, V::integer(0x7fffffff));
  const Float f = V::add(V::to_float(v), V::broadcast(0.5f));
  const Int b = V::subtract(V::bits(f), V::integer(kLogBits));
  const Float e = V::mul(V::exponent(b), V::broadcast(kMinus2Ln2));
  const Int m = V::add(V::bit_and(b, V::integer(kMantissa)), V::integer(kLogBits));
  const Float far = V::subtract(V::as_float(m), V::broadcast(1.0f));
  const Float t = V::select(near_one, V::mul(f, V::broadcast(-0x1p-31f)), far);
  return V::sqrt(V::fma(t, horner<V>(kLog, t), V::zero_where(near_one, e)));
}

template <class V>
MMCL_INLINE void box_muller(typename V::Int a, typename V::Int b, typename V::Float& z0,
                            typename V::Float& z1) {
  using Float = typename V::Float;
  const Float x = V::mul(V::to_float(V::shift_left_2_or_2(b)), V::broadcast(0x1p-31f));
  const Float x2 = V::mul(x, x);
  Float first = horner<V>(kCos, x2);
  Float second = V::mul(x, horner<V>(kSin, x2));
  V::swap_where_bit_30(b, first, second);
  const Float r = radius<V>(a);
  z0 = V::mul(r, V::flip_sign(first, V::bit_xor(b, V::template shift_left<1>(b))));
  z1 = V::mul(r, V::flip_sign(second, b));
}

// Calls `emit(i, a, b)` with V::width words of an even and of the next odd counter word; they belong
// at i and i + 64.
template <class V, class Emit>
MMCL_INLINE void for_each_pair(const Row& row, std::uint32_t first, std::size_t tiles, Emit emit) {
  const Rounds<V> rounds = prepare<V>(row);
  const std::uint64_t start = std::uint64_t{first} * kLanes * kPhiloxM0;
  const auto step = V::wide(std::uint64_t{V::width} * kPhiloxM0);
  typename V::Wide p[2] = {V::wide_add(V::wide(start), V::even_products()),
                           V::wide_add(V::wide(start), V::odd_products())};
  for (std::size_t tile = 0; tile < tiles; ++tile) {
    for (int lane = 0; lane < kLanes; lane += V::width) {
      typename V::Wide c[4][2];
      philox<V, 2>(rounds, p, c);
      p[0] = V::wide_add(p[0], step);
      p[1] = V::wide_add(p[1], step);
      const std::size_t i = tile * kTile + static_cast<std::size_t>(lane);
      emit(i, V::pack(c[0][0], c[0][1]), V::pack(c[1][0], c[1][1]));
      emit(i + 2 * kLanes, V::pack(c[2][0], c[2][1]), V::pack(c[3][0], c[3][1]));
    }
  }
}

// `store(i, z)` receives V::width standard normals that belong at i.
template <class V, class Store>
MMCL_INLINE void for_each_normal(const Row& row, std::uint32_t first, std::size_t tiles,
                                 Store store) {
  using Int = typename V::Int;
  for_each_pair<V>(row, first, tiles, [=](std::size_t i, Int a, Int b) {
    typename V::Float z0, z1;
    box_muller<V>(a, b, z0, z1);
    store(i, z0);
    store(i + kLanes, z1);
  });
}

template <class V, bool kStream>
static void f32(const Row& row, std::uint32_t first, std::size_t tiles, float scale, float* out) {
  const auto s = V::broadcast(scale);
  for_each_normal<V>(row, first, tiles, [=](std::size_t i, typename V::Float z) {
    V::template store<kStream>(out + i, V::mul(z, s));
  });
}

template <class V, bool kStream>
static void bf16(const Row& row, std::uint32_t first, std::size_t tiles, float scale,
                 std::uint16_t* out) {
  const auto s = V::broadcast(scale);
  for_each_normal<V>(row, first, tiles, [=](std::size_t i, typename V::Float z) {
    V::template store_bf16<kStream>(out + i, V::mul(z, s));
  });
}

template <class V, bool kStream>
static void f64(const Row& row, std::uint32_t first, std::size_t tiles, double scale, double* out) {
  for_each_normal<V>(row, first, tiles, [=](std::size_t i, typename V::Float z) {
    V::template store_scaled<kStream>(out + i, z, scale);
  });
}

template <class V, bool kStream>
static void words(const Row& row, std::uint32_t first, std::size_t tiles, std::uint32_t* out) {
  using Int = typename V::Int;
  for_each_pair<V>(row, first, tiles, [=](std::size_t i, Int a, Int b) {
    V::template store<kStream>(out + i, a);
    V::template store<kStream>(out + i + kLanes, b);
  });
}

template <class V, bool kStream>
constexpr Kernels kKernels{f32<V, kStream>, bf16<V, kStream>, f64<V, kStream>, words<V, kStream>};

}  // namespace simd
}  // namespace mmcl

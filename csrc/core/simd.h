// Normals and words of the stream, written once over a wrapper `V` (units.h) per instruction set.
#pragma once

#include "transform_simd.h"

namespace mmcl {
namespace simd {

template <class V>
struct Rounds {
  Philox<V>& philox;
  MMCL_INLINE void begin() const { philox.begin(); }
  MMCL_INLINE void next() const { philox.next(); }
};

struct Nothing {
  MMCL_INLINE void begin() const {}
  MMCL_INLINE void next() const {}
};

// `store(i, z)` receives V::width standard normals that belong at i. The words of one step are made
// while those of the step before become normals.
template <class V, class Store>
MMCL_INLINE void for_each_normal(const Row& row, std::uint32_t first, std::size_t tiles,
                                 Store store) {
  constexpr std::size_t kSteps = kLanes / V::width;
  Philox<V> philox(row, first, /*flip=*/0xffffffff);
  typename V::Int words[4];
  typename V::Float z[4];
  const auto store_all = [&z, store](std::size_t step) MMCL_INLINE_LAMBDA {
    const std::size_t i = step / kSteps * kTile + step % kSteps * V::width;
    MMCL_UNROLL(4)
    for (std::size_t k = 0; k < 4; ++k) store(i + k * kLanes, z[k]);
  };
  philox.begin();
  philox.finish(words);
  const std::size_t last = tiles * kSteps - 1;
  for (std::size_t step = 0; step < last; ++step) {
    box_muller<V>(words, z, Rounds<V>{philox});
    philox.finish(words);
    store_all(step);
  }
  box_muller<V>(words, z, Nothing{});
  store_all(last);
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
  Philox<V> philox(row, first, /*flip=*/0);
  for (std::size_t tile = 0; tile < tiles; ++tile, out += kTile) {
    for (std::size_t lane = 0; lane < kLanes; lane += V::width) {
      typename V::Int w[4];
      philox.begin();
      philox.finish(w);
      MMCL_UNROLL(4)
      for (std::size_t k = 0; k < 4; ++k) V::template store<kStream>(out + k * kLanes + lane, w[k]);
    }
  }
}

template <class V, bool kStream>
constexpr StreamKernels kKernels{f32<V, kStream>, bf16<V, kStream>, f64<V, kStream>,
                                 words<V, kStream>};

}  // namespace simd
}  // namespace mmcl

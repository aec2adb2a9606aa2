// The target that every machine can run: plain loops, left to the compiler.
//
// On ARM64 they become NEON code. On x86-64 without AVX2 the fused multiply-add is a library call,
// which is right in every bit and slow.
#include "plain.h"

#include "softmax_simd.h"
#include "target.h"

namespace mmcl {
namespace {

using Words = std::uint32_t[4][kLanes];

void tile_words(const Row& row, std::uint32_t tile, Words& w) {
  for (int lane = 0; lane < kLanes; ++lane) {
    std::uint32_t c[4] = {tile * kLanes + static_cast<std::uint32_t>(lane), row.sample, row.run,
                          row.tag_epoch};
    philox4x32(c, row.key0, row.key1);
    for (int k = 0; k < 4; ++k) w[k][lane] = c[k];
  }
}

void tile_normals(const Row& row, std::uint32_t tile, float* z) {
  Words w;
  tile_words(row, tile, w);
  for (int pair = 0; pair < 4; pair += 2) {
    for (int lane = 0; lane < kLanes; ++lane) {
      box_muller(w[pair][lane], w[pair + 1][lane], z[pair * kLanes + lane],
                 z[(pair + 1) * kLanes + lane]);
    }
  }
}

template <class T, class Convert>
void normals(const Row& row, std::uint32_t first, std::size_t tiles, T* out, Convert convert) {
  float z[kTile];
  for (std::size_t t = 0; t < tiles; ++t, out += kTile) {
    tile_normals(row, first + static_cast<std::uint32_t>(t), z);
    for (int i = 0; i < kTile; ++i) out[i] = convert(z[i]);
  }
}

void f32(const Row& row, std::uint32_t first, std::size_t tiles, float scale, float* out) {
  normals(row, first, tiles, out, [scale](float z) { return z * scale; });
}

void bf16(const Row& row, std::uint32_t first, std::size_t tiles, float scale, std::uint16_t* out) {
  normals(row, first, tiles, out, [scale](float z) { return bf16_of_float(z * scale); });
}

void f64(const Row& row, std::uint32_t first, std::size_t tiles, double scale, double* out) {
  normals(row, first, tiles, out, [scale](float z) { return static_cast<double>(z) * scale; });
}

void words(const Row& row, std::uint32_t first, std::size_t tiles, std::uint32_t* out) {
  Words w;
  for (std::size_t t = 0; t < tiles; ++t, out += kTile) {
    tile_words(row, first + static_cast<std::uint32_t>(t), w);
    std::memcpy(out, w, sizeof w);
  }
}

// Sixteen partial sums of a dot product, which the compiler keeps in vectors.
float dot(const float* x, const float* y, std::size_t dims) {
  float sum[16] = {};
  for (std::size_t k = 0; k < dims; k += 16) {
    for (std::size_t lane = 0; lane < 16; ++lane) sum[lane] += x[k + lane] * y[k + lane];
  }
  for (int half = 8; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sum[lane] += sum[lane + half];
  }
  return sum[0];
}

void gram(const float* x, std::size_t rows, std::size_t stride, std::size_t dims, double* out) {
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      out[i * rows + j] += double{dot(x + i * stride, x + j * stride, dims)};
    }
  }
}

// Sixteen lanes as an array, for the templates that are written over a vector.
struct Plain {
  struct Float {
    float lane[16];
  };
  static constexpr int width = 16;

  template <class F>
  static MMCL_INLINE Float each(F f) {
    Float out;
    for (int k = 0; k < width; ++k) out.lane[k] = f(k);
    return out;
  }
  template <class F>
  static MMCL_INLINE float fold(Float a, F f) {
    for (int half = width / 2; half > 0; half /= 2) {
      for (int k = 0; k < half; ++k) a.lane[k] = f(a.lane[k], a.lane[k + half]);
    }
    return a.lane[0];
  }

  static Float broadcast(float x) {
    return each([=](int) { return x; });
  }
  static Float load(const float* from) {
    return each([=](int k) { return from[k]; });
  }
  static Float load_first(const float* from, int count, float rest) {
    return each([=](int k) { return k < count ? from[k] : rest; });
  }
  template <bool kStream>
  static void store(float* out, Float a) {
    std::memcpy(out, a.lane, sizeof a.lane);
  }
  static void store_first(float* out, int count, Float a) {
    std::memcpy(out, a.lane, static_cast<std::size_t>(count) * sizeof(float));
  }
  static Float add(Float a, Float b) {
    return each([=](int k) { return a.lane[k] + b.lane[k]; });
  }
  static Float subtract(Float a, Float b) {
    return each([=](int k) { return a.lane[k] - b.lane[k]; });
  }
  static Float mul(Float a, Float b) {
    return each([=](int k) { return a.lane[k] * b.lane[k]; });
  }
  static Float divide(Float a, Float b) {
    return each([=](int k) { return a.lane[k] / b.lane[k]; });
  }
  static Float fma(Float a, Float b, Float c) {
    return each([=](int k) { return std::fma(a.lane[k], b.lane[k], c.lane[k]); });
  }
  static Float maximum(Float a, Float b) {
    return each([=](int k) { return a.lane[k] > b.lane[k] ? a.lane[k] : b.lane[k]; });
  }
  static Float minimum(Float a, Float b) {
    return each([=](int k) { return a.lane[k] < b.lane[k] ? a.lane[k] : b.lane[k]; });
  }
  static float sum(Float a) {
    return fold(a, [](float x, float y) { return x + y; });
  }
  static float largest(Float a) {
    return fold(a, [](float x, float y) { return x > y ? x : y; });
  }
  struct Nearest {
    Float number, half_power;
  };
  static Nearest nearest(Float x) {
    const Float shift = broadcast(kRoundToExponent), shifted = add(x, shift);
    Nearest n{subtract(shifted, shift), {}};
    std::uint32_t bits[width];
    std::memcpy(bits, shifted.lane, sizeof bits);
    for (std::uint32_t& lane : bits) lane <<= 23;
    std::memcpy(n.half_power.lane, bits, sizeof bits);
    return n;
  }
  // a * 2^n, but 0 where x < limit.
  static Float scale_unless_less(Float a, Nearest n, Float x, Float limit) {
    const Float half = mul(a, n.half_power);
    return select_unless_less(add(half, half), broadcast(0.0f), x, limit);
  }
  static Float select_unless_less(Float a, Float b, Float x, Float limit) {
    return each([=](int k) { return x.lane[k] < limit.lane[k] ? b.lane[k] : a.lane[k]; });
  }
  static Float without_subnormal(Float a) {
    return each([=](int k) { return std::fabs(a.lane[k]) < 0x1p-126f ? 0.0f : a.lane[k]; });
  }
};

constexpr Kernels kKernels{f32, bf16, f64, words};

}  // namespace

#if defined(__aarch64__)
extern const Target kPlainTarget{"neon",       kKernels,   kKernels, gram, simd::kSoftmax<Plain>,
                                 &kPlainLanes, &kPlainHead};
#else
extern const Target kPlainTarget{"baseline",   kKernels,   kKernels, gram, simd::kSoftmax<Plain>,
                                 &kPlainLanes, &kPlainHead};
#endif

}  // namespace mmcl

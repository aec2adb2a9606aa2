// The target that every machine can run: plain loops, left to the compiler.
//
// On x86-64 without AVX2 the fused multiply-add is a library call, which is right in every bit and
// slow.
#include "contraction.h"
#include "embed_simd.h"
#include "head_simd.h"
#include "inner_products_simd.h"
#include "plain_vector.h"
#include "softmax_simd.h"
#include "trajectory_simd.h"
#include "variant_simd.h"

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

constexpr StreamKernels kKernels{f32, bf16, f64, words};

}  // namespace

extern const Target kPlainTarget{
    "baseline",
    fuses<PlainFloats>,
    kKernels,
    kKernels,
    gram,
    simd::kSoftmax<PlainFloats>,
    lanes::embed<PlainFloats>,
    lanes::inner_products<PlainFloats>,
    lanes::train_run<PlainFloats>,
    lanes::train_variant<PlainFloats>,
    doubles::kHead<PlainDoubles>,
};

}  // namespace mmcl

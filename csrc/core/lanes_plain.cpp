// Sixteen lanes as plain loops for inner products, training runs and embeddings, left to the
// compiler (plain.cpp says what becomes of them).
#include "embed_simd.h"
#include "inner_products_simd.h"
#include "lanes.h"
#include "plain.h"
#include "trajectory_simd.h"

namespace mmcl {
namespace {

struct PlainLanes {
  struct Float {
    float lane[kUnit];
  };
  struct Mask {
    bool lane[kUnit];
  };
  static constexpr int score_rows = 2, score_units = 2, pull_units = 2, move_units = 2;
  static constexpr std::size_t dot_rows = 2, dot_columns = 2;

  template <class To, class F>
  static To each(F f) {
    To out;
    for (std::size_t i = 0; i < kUnit; ++i) out.lane[i] = f(i);
    return out;
  }

  static Float broadcast(float x) {
    return each<Float>([=](std::size_t) { return x; });
  }
  static Float load(const float* from) {
    return each<Float>([=](std::size_t i) { return from[i]; });
  }
  static void store(float* to, const Float& a) { std::memcpy(to, a.lane, sizeof a.lane); }
  static Float load_first(const float* from, std::size_t lanes) {
    return each<Float>([=](std::size_t i) { return i < lanes ? from[i] : 0.0f; });
  }
  static void store_first(float* to, const Float& a, std::size_t lanes) {
    for (std::size_t i = 0; i < kUnit && i < lanes; ++i) to[i] = a.lane[i];
  }
  static Float add(const Float& a, const Float& b) {
    return each<Float>([&](std::size_t i) { return a.lane[i] + b.lane[i]; });
  }
  static Float subtract(const Float& a, const Float& b) {
    return each<Float>([&](std::size_t i) { return a.lane[i] - b.lane[i]; });
  }
  static Float mul(const Float& a, const Float& b) {
    return each<Float>([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
  }
  static Float div(const Float& a, const Float& b) {
    return each<Float>([&](std::size_t i) { return a.lane[i] / b.lane[i]; });
  }
  static Float fma(const Float& a, const Float& b, const Float& c) {
    return each<Float>([&](std::size_t i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static Float larger(const Float& a, const Float& b) {
    return each<Float>(
        [&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }

  static Mask less(const Float& a, const Float& b) {
    return each<Mask>([&](std::size_t i) { return a.lane[i] < b.lane[i]; });
  }
  static Mask both(const Mask& a, const Mask& b) {
    return each<Mask>([&](std::size_t i) { return a.lane[i] && b.lane[i]; });
  }
  static Mask first(std::size_t lanes) {
    return each<Mask>([=](std::size_t i) { return i < lanes; });
  }
  static std::size_t count(const Mask& m) {
    std::size_t found = 0;
    for (const bool set : m.lane) found += set ? 1 : 0;
    return found;
  }
  static Float select(const Mask& m, const Float& a, const Float& b) {
    return each<Float>([&](std::size_t i) { return m.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Float keep(const Mask& m, const Float& a) { return select(m, a, broadcast(0.0f)); }
  static Float drop(const Mask& m, const Float& a) { return select(m, broadcast(0.0f), a); }
  static std::size_t append(const Mask& m, std::int32_t start, std::int32_t* to) {
    std::size_t found = 0;
    for (std::size_t i = 0; i < kUnit; ++i) {
      if (m.lane[i]) to[found++] = start + static_cast<std::int32_t>(i);
    }
    return found;
  }

  static Float two_to_the(const Float& shifted) {
    return each<Float>([&](std::size_t i) {
      return float_of_bits((bits_of_float(shifted.lane[i]) << 23) + (127u << 23));
    });
  }
  static void split(const Float& u, Float& exponent, Float& mantissa) {
    for (std::size_t i = 0; i < kUnit; ++i) {
      const std::uint32_t b = bits_of_float(u.lane[i]) - static_cast<std::uint32_t>(kLogBits);
      exponent.lane[i] = static_cast<float>(static_cast<std::int32_t>(b) >> 23);
      mantissa.lane[i] = float_of_bits((b & kMantissa) + kLogBits);
    }
  }

  static void transpose(const float* from, std::size_t stride, float* to, std::size_t to_stride) {
    for (std::size_t i = 0; i < kUnit; ++i) {
      for (std::size_t k = 0; k < kUnit; ++k) to[k * to_stride + i] = from[i * stride + k];
    }
  }
};

}  // namespace

void train_run_plain(const TrajectorySettings& settings, const TrajectoryRun& run, float* memory) {
  lanes::train_run<PlainLanes>(settings, run, memory);
}

const LanesKernels kPlainLanes{lanes::embed<PlainLanes>, lanes::inner_products<PlainLanes>,
                               lanes::train_run<PlainLanes>};

}  // namespace mmcl

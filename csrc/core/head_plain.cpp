// Eight lanes of doubles as plain loops for logistic heads.
#include <cmath>
#include <cstring>

#include "head_simd.h"

namespace mmcl {
namespace {

struct PlainDoubles {
  struct Float {
    double lane[kDoubles];
  };
  struct Mask {
    bool lane[kDoubles];
  };
  static constexpr int combine_units = 2, gram_rows = 2, gram_units = 2, factor_units = 2;

  template <class To, class F>
  static To each(F f) {
    To out;
    for (std::size_t i = 0; i < kDoubles; ++i) out.lane[i] = f(i);
    return out;
  }

  static Float broadcast(double x) {
    return each<Float>([=](std::size_t) { return x; });
  }
  static Float load(const double* from) {
    return each<Float>([=](std::size_t i) { return from[i]; });
  }
  static void store(double* to, const Float& a) { std::memcpy(to, a.lane, sizeof a.lane); }
  template <class T>
  static Float load_first(const T* from, std::size_t lanes) {
    return each<Float>([=](std::size_t i) { return i < lanes ? double{from[i]} : 0.0; });
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
  static Float root(const Float& a) {
    return each<Float>([&](std::size_t i) { return std::sqrt(a.lane[i]); });
  }
  static double root(double a) { return std::sqrt(a); }
  static Float larger(const Float& a, const Float& b) {
    return each<Float>(
        [&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Float smaller(const Float& a, const Float& b) {
    return each<Float>(
        [&](std::size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Mask less(const Float& a, const Float& b) {
    return each<Mask>([&](std::size_t i) { return a.lane[i] < b.lane[i]; });
  }
  static Float select(const Mask& m, const Float& a, const Float& b) {
    return each<Float>([&](std::size_t i) { return m.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Float drop(const Mask& m, const Float& a) { return select(m, broadcast(0.0), a); }
  static Float two_to_the(const Float& shifted) {
    return each<Float>([&](std::size_t i) {
      std::uint64_t bits;
      std::memcpy(&bits, &shifted.lane[i], sizeof bits);
      bits = (bits << 52) + (1023ull << 52);
      double found;
      std::memcpy(&found, &bits, sizeof found);
      return found;
    });
  }
};

}  // namespace

const HeadKernels kPlainHead = doubles::kHead<PlainDoubles>;

}  // namespace mmcl

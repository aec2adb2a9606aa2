#include "chi.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "default_floats.h"
#include "parallel.h"
#include "plain.h"

namespace mmcl {
namespace {

using Words = std::array<std::uint32_t, 4>;

double uniform(std::uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }

// Gamma(shape) by Marsaglia and Tsang, "A simple method for generating gamma variables" (ACM TOMS
// 26, 2000); proposal t is block t of the row.
template <class Block>
double gamma(double shape, Block block) {
  const double d = shape - 1.0 / 3.0, root = std::sqrt(9.0 * d);
  for (std::uint32_t attempt = 0;; ++attempt) {
    const Words w = block(attempt);
    float cosine, sine;
    box_muller(w[0], w[1], cosine, sine);
    const double x = cosine, t = x / root;
    if (!(t > -1.0)) continue;
    const double grown = t * (3.0 + t * (3.0 + t));  // (1 + t)^3 - 1 without cancellation
    // log1p keeps the difference of two large terms right to 1e-9 at 10^15 degrees of freedom.
    if (std::log(uniform(w[2])) < x * x / 2.0 + d * (3.0 * std::log1p(t) - grown)) {
      return d * (1.0 + grown);
    }
  }
}

double draw(const Stream& stream, std::uint64_t row, double degrees) {
  const auto key0 = static_cast<std::uint32_t>(stream.seed);
  const auto key1 = static_cast<std::uint32_t>(stream.seed >> 32);
  const auto block = [&](std::uint32_t number) {
    Words w{number, static_cast<std::uint32_t>(row), 0, stream.tag << 24 | stream.epoch};
    philox4x32(w.data(), key0, key1);
    return w;
  };
  const bool few = degrees < 2.0;  // the method needs a shape of at least 1
  double value = gamma(few ? degrees / 2.0 + 1.0 : degrees / 2.0, block);
  if (few) value *= std::pow(uniform(block(0)[3]), 2.0 / degrees);
  return std::sqrt(2.0 * value);
}

}  // namespace

void chi(const std::vector<std::uint64_t>& seeds, std::uint32_t tag, std::uint64_t first_row,
         const double* degrees, std::size_t rows, double* out, int threads) {
  check_region({0, tag, 0}, {0, first_row, 0}, {1, rows, 1}, threads);
  // Less than a few thousand draws does not pay for a thread.
  const auto most = std::min<std::uint64_t>(static_cast<std::uint64_t>(threads), seeds.size());
  const std::uint64_t parts = std::min<std::uint64_t>(most, 1 + seeds.size() * rows / 4096);
  for_each_part(parts, [&](std::uint64_t part) {
    const DefaultFloats mode;
    const std::uint64_t end = part_begin(part + 1, parts, seeds.size());
    for (std::uint64_t run = part_begin(part, parts, seeds.size()); run < end; ++run) {
      for (std::size_t i = 0; i < rows; ++i) {
        const std::size_t at = run * rows + i;
        out[at] = draw({seeds[run], tag, 0}, first_row + i, degrees[at]);
      }
    }
  });
}

}  // namespace mmcl

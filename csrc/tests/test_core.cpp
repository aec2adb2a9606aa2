// Plain C++ test of csrc/core, meant to run under the address and undefined-behaviour sanitizers.
// Every target is compared, dimension by dimension, with the one-block functions of plain.h.
#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../core/fill.h"
#include "../core/gram.h"
#include "../core/plain.h"

namespace {

int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

// The definition's value at one coordinate, for output type T.
template <class T>
T reference(const mmcl::Stream& stream, std::uint64_t run, std::uint64_t sample, std::uint64_t dim,
            double scale) {
  const std::uint64_t block = dim / mmcl::kTile * mmcl::kLanes + dim % mmcl::kLanes;
  const std::uint64_t word = dim / mmcl::kLanes % 4;
  std::uint32_t c[4] = {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(sample),
                        static_cast<std::uint32_t>(run), stream.tag << 24 | stream.epoch};
  mmcl::philox4x32(c, static_cast<std::uint32_t>(stream.seed),
                   static_cast<std::uint32_t>(stream.seed >> 32));
  if (std::is_same<T, std::uint32_t>::value) return static_cast<T>(c[word]);
  float z[2];
  mmcl::box_muller(c[word & 2], c[word | 1], z[0], z[1]);
  const float scaled = z[word & 1] * static_cast<float>(scale);
  if (std::is_same<T, std::uint16_t>::value) return static_cast<T>(mmcl::bf16_of_float(scaled));
  if (std::is_same<T, double>::value) return static_cast<T>(double{z[word & 1]} * scale);
  return static_cast<T>(scaled);
}

template <class T>
void fill(const mmcl::Target& target, const mmcl::Stream& stream, const mmcl::Slice<T>& slice,
          double scale, int threads) {
  mmcl::fill_normal<T>(target, stream, slice, scale, threads);
}

template <>
void fill<std::uint32_t>(const mmcl::Target& target, const mmcl::Stream& stream,
                         const mmcl::Slice<std::uint32_t>& slice, double, int threads) {
  mmcl::fill_words(target, stream, slice, threads);
}

struct Case {
  std::array<std::uint64_t, 3> start, shape;
  std::size_t shift;  // of the first value behind a multiple of 64 bytes
  std::size_t gap;    // between rows, where nothing may be written
  int threads;
  std::size_t every = 1;  // compare each value, or only these (a large case)
};

template <class T>
void check(const mmcl::Target& target, const Case& c, const char* type) {
  const mmcl::Stream stream{0x0123456789abcdefu, 4, 0xfedcbau};
  const double scale = 0.3;
  const std::size_t row = c.shape[2] + c.gap, rows = c.shape[0] * c.shape[1];
  const std::size_t guard = 64 / sizeof(T), size = rows * row;
  const T untouched = static_cast<T>(77);
  std::vector<T> memory(size + 3 * guard + c.shift, untouched);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  const std::size_t first = guard + (64 - address % 64) % 64 / sizeof(T) + c.shift;
  const mmcl::Slice<T> slice{memory.data() + first, c.start, c.shape,
                             static_cast<std::int64_t>(row * c.shape[1]),
                             static_cast<std::int64_t>(row)};
  fill(target, stream, slice, scale, c.threads);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < memory.size(); i += c.every) {
    const std::size_t at = i - first, k = at / row;
    const bool inside = i >= first && at < size && at % row < c.shape[2];
    const T expected = inside
                           ? reference<T>(stream, c.start[0] + k / c.shape[1],
                                          c.start[1] + k % c.shape[1], c.start[2] + at % row, scale)
                           : untouched;
    wrong += memory[i] != expected;
  }
  expect(wrong == 0, std::string(target.name) + " " + type + ": " + std::to_string(wrong) + " of " +
                         std::to_string(memory.size()) + " values, dims " +
                         std::to_string(c.start[2]) + " + " + std::to_string(c.shape[2]));
}

void check_all_types(const mmcl::Target& target, const Case& c) {
  check<float>(target, c, "float32");
  check<double>(target, c, "float64");
  check<std::uint16_t>(target, c, "bfloat16");
  check<std::uint32_t>(target, c, "words");
}

void known_answers() {
  std::uint32_t zero[4] = {0, 0, 0, 0}, ones[4],
                pi[4] = {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u};
  std::fill(ones, ones + 4, 0xffffffffu);
  mmcl::philox4x32(zero, 0, 0);
  mmcl::philox4x32(ones, 0xffffffffu, 0xffffffffu);
  mmcl::philox4x32(pi, 0xa4093822u, 0x299f31d0u);
  const std::uint32_t answers[3][4] = {{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u},
                                       {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu},
                                       {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}};
  expect(std::equal(zero, zero + 4, answers[0]), "Random123 answer of zeros");
  expect(std::equal(ones, ones + 4, answers[1]), "Random123 answer of ones");
  expect(std::equal(pi, pi + 4, answers[2]), "Random123 answer of the digits of pi");
}

// A kernel's streaming variant equals the cached one; the public path takes it for large outputs
// only.
template <class T, class Kernel, class Scale>
void check_streaming(Kernel cached, Kernel streaming, Scale scale, const std::string& what) {
  const std::size_t tiles = 5;
  const mmcl::Row row{1, 2, 3, 4, 5u << 24};
  alignas(64) T a[tiles * mmcl::kTile], b[tiles * mmcl::kTile];
  cached(row, 0x3fffff0u, tiles, scale, a);
  streaming(row, 0x3fffff0u, tiles, scale, b);
  expect(std::equal(a, a + tiles * mmcl::kTile, b), what + ": streaming stores");
}

void check_target(const mmcl::Target& target) {
  const std::uint64_t last = (std::uint64_t{1} << 32) - 2, dims = std::uint64_t{1} << 34;
  const Case cases[] = {
      {{0, 0, 0}, {1, 1, 1}, 0, 0, 1},
      {{0, 0, 0}, {2, 3, 256}, 0, 0, 1},
      {{1, 2, 3}, {2, 3, 1021}, 1, 7, 2},
      {{1, 2, 300}, {1, 1, 100}, 3, 0, 1},
      {{last, last, dims - 777}, {2, 2, 777}, 5, 1, 3},
      {{0, 0, 250}, {1, 3, 70001}, 9, 0, 3},
      {{0, 9, 0}, {1, 1, 512}, 0, 0, 1},
  };
  for (const Case& c : cases) check_all_types(target, c);
  const std::string name = target.name;
  const auto &k = target.cached, &s = target.streaming;
  check_streaming<float>(k.f32, s.f32, 1.0f, name + " float32");
  check_streaming<std::uint16_t>(k.bf16, s.bf16, 0.7f, name + " bfloat16");
  check_streaming<double>(k.f64, s.f64, 0.7, name + " float64");
  // 34 MB: above the threshold, in aligned rows, by three threads.
  check<double>(target, {{0, 0, 128}, {1, 2, 2129920}, 0, 0, 3, 61}, "large float64");
}

// Seven rows: blocks of every shape reach over the edge. 2500 dimensions: three chunks, the last
// ragged.
void check_gram(const mmcl::Target& target) {
  const std::size_t samples = 7, dims = 2500;
  const mmcl::Stream stream{99, 1, 2};
  std::vector<double> x(samples * dims), one(samples * samples), three(samples * samples);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = double{reference<float>(stream, 3, 4 + i / dims, 1000 + i % dims, 0.5)};
  }
  mmcl::streaming_gram(target, stream, {3, 4, 1000}, samples, dims, 0.5, 1, one.data());
  mmcl::streaming_gram(target, stream, {3, 4, 1000}, samples, dims, 0.5, 3, three.data());
  expect(one == three, std::string(target.name) + " Gram matrix: threads");
  double largest = 0;
  for (std::size_t i = 0; i < samples; ++i) {
    for (std::size_t j = 0; j < samples; ++j) {
      double exact = 0;
      for (std::size_t k = 0; k < dims; ++k) exact += x[i * dims + k] * x[j * dims + k];
      largest = std::max(largest, std::fabs(one[i * samples + j] - exact));
    }
  }
  // Entries are near 625 on the diagonal; a lost column would err by about 0.25.
  expect(largest < 1e-3,
         std::string(target.name) + " Gram matrix: off by " + std::to_string(largest));
}

template <class Call>
void expect_refusal(Call call, const std::string& what) {
  try {
    call();
  } catch (const std::invalid_argument&) {
    return;
  }
  expect(false, what + " was not refused");
}

void refusals() {
  const mmcl::Target& target = mmcl::find_target("auto");
  float value = 77;
  const auto fill_one = [&](mmcl::Stream stream, std::array<std::uint64_t, 3> start, int threads) {
    mmcl::fill_normal<float>(target, stream, {&value, start, {1, 1, 1}, 1, 1}, 1.0, threads);
  };
  expect_refusal([&] { fill_one({0, 256, 0}, {0, 0, 0}, 1); }, "tag 256");
  expect_refusal([&] { fill_one({0, 1, 1u << 24}, {0, 0, 0}, 1); }, "epoch 2^24");
  expect_refusal([&] { fill_one({0, 1, 0}, {std::uint64_t{1} << 32, 0, 0}, 1); }, "run 2^32");
  expect_refusal([&] { fill_one({0, 1, 0}, {0, ~std::uint64_t{0}, 0}, 1); }, "sample 2^64 - 1");
  expect_refusal([&] { fill_one({0, 1, 0}, {0, 0, std::uint64_t{1} << 34}, 1); }, "dim 2^34");
  expect_refusal([&] { fill_one({0, 1, 0}, {0, 0, 0}, 0); }, "no thread");
  expect_refusal([] { mmcl::find_target("sse9"); }, "an unknown target");
  expect(value == 77, "a refused call wrote nothing");
}

}  // namespace

int main() {
  known_answers();
  refusals();
  for (const mmcl::Target* target : mmcl::targets()) {
    check_target(*target);
    check_gram(*target);
    std::printf("%s: checked\n", target->name);
  }
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

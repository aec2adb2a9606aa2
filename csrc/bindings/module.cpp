// Python surface of csrc/core: checks the buffer's layout, releases the GIL, translates nothing
// else (pybind11 turns std::invalid_argument into ValueError).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "../core/chi.h"
#include "../core/fill.h"
#include "../core/gram.h"
#include "arrays.h"
#include "contrast.h"
#include "head.h"
#include "signals.h"
#include "softmax.h"
#include "trajectory.h"
#include "variant.h"

namespace py = pybind11;
namespace bindings = mmcl::bindings;

namespace {

using Start = std::array<std::uint64_t, 3>;

template <class T>
mmcl::Slice<T> slice_of(const py::buffer_info& info, const Start& start) {
  if (info.ndim != 3) throw py::value_error("out: expected 3 axes [runs, samples, dims]");
  const auto size = static_cast<py::ssize_t>(sizeof(T));
  if (info.shape[2] > 1 && info.strides[2] != size) {
    throw py::value_error("out: expected contiguous values along the last axis");
  }
  if (info.strides[0] % size != 0 || info.strides[1] % size != 0) {
    throw py::value_error("out: expected strides that are multiples of the item size");
  }
  mmcl::Slice<T> slice{
      static_cast<T*>(info.ptr), start, {}, info.strides[0] / size, info.strides[1] / size};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    slice.shape[axis] = static_cast<std::uint64_t>(info.shape[axis]);
  }
  return slice;
}

// Calls fill(slice) with the GIL released, for the element type of `out`.
template <class Fill>
void fill_normals(const py::buffer& out, const Start& start, const Fill& fill) {
  const py::buffer_info info = out.request(/*writable=*/true);
  const auto into = [&](auto slice) {
    const py::gil_scoped_release released;
    fill(slice);
  };
  if (info.item_type_is_equivalent_to<float>()) {
    into(slice_of<float>(info, start));
  } else if (info.item_type_is_equivalent_to<double>()) {
    into(slice_of<double>(info, start));
  } else if (info.item_type_is_equivalent_to<std::uint16_t>()) {
    into(slice_of<std::uint16_t>(info, start));
  } else {
    throw py::type_error("out: expected float32, float64 or uint16 (bfloat16 bits), got format '" +
                         info.format + "'");
  }
}

void fill_normal(const py::buffer& out, const Start& start, std::uint64_t seed, std::uint32_t tag,
                 std::uint32_t epoch, double scale, int threads, const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  fill_normals(out, start, [&](const auto& slice) {
    mmcl::fill_normal(target, {seed, tag, epoch}, slice, scale, threads);
  });
}

template <class T>
void require_for_each_run(const mmcl::Slice<T>& slice, std::size_t given, const char* name) {
  if (slice.shape[0] != given) {
    throw std::invalid_argument(std::string(name) + ": expected one for each run");
  }
}

void fill_normal_runs(const py::buffer& out, const std::vector<std::uint64_t>& seeds,
                      const std::vector<double>& scales, std::uint32_t tag, std::uint32_t epoch,
                      int threads, const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  fill_normals(out, {0, 0, 0}, [&](const auto& slice) {
    require_for_each_run(slice, seeds.size(), "seeds");
    require_for_each_run(slice, scales.size(), "scales");
    const mmcl::PerRun per_run{seeds.data(), scales.data()};
    mmcl::fill_normal(target, {0, tag, epoch}, slice, per_run, threads);
  });
}

py::buffer_info words_of(const py::buffer& out) {
  py::buffer_info info = out.request(/*writable=*/true);
  if (!info.item_type_is_equivalent_to<std::uint32_t>()) {
    throw py::type_error("out: expected uint32, got format '" + info.format + "'");
  }
  return info;
}

void fill_words(const py::buffer& out, const Start& start, std::uint64_t seed, std::uint32_t tag,
                std::uint32_t epoch, int threads, const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  const py::buffer_info info = words_of(out);
  const auto slice = slice_of<std::uint32_t>(info, start);
  const py::gil_scoped_release released;
  mmcl::fill_words(target, {seed, tag, epoch}, slice, threads);
}

void fill_word_runs(const py::buffer& out, const std::vector<std::uint64_t>& seeds,
                    std::uint32_t tag, std::uint32_t epoch, int threads,
                    const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  const py::buffer_info info = words_of(out);
  const auto slice = slice_of<std::uint32_t>(info, {0, 0, 0});
  require_for_each_run(slice, seeds.size(), "seeds");
  const py::gil_scoped_release released;
  mmcl::fill_words(target, {0, tag, epoch}, slice, seeds.data(), threads);
}

void streaming_gram(const py::buffer& out, const Start& start, std::uint64_t dims,
                    std::uint64_t seed, std::uint32_t tag, std::uint32_t epoch, double scale,
                    int threads, const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  const py::buffer_info info = out.request(/*writable=*/true);
  const auto size = static_cast<py::ssize_t>(sizeof(double));
  if (!info.item_type_is_equivalent_to<double>() || info.ndim != 2 ||
      info.shape[0] != info.shape[1] || info.strides[1] != size ||
      info.strides[0] != size * info.shape[1]) {
    throw py::value_error("out: expected contiguous float64 [samples, samples]");
  }
  bindings::Signals signals;
  {
    const py::gil_scoped_release released;
    mmcl::streaming_gram(target, mmcl::Stream{seed, tag, epoch}, start,
                         static_cast<std::uint64_t>(info.shape[0]), dims, scale, threads,
                         static_cast<double*>(info.ptr), [&] { return signals.go_on(); });
  }
  signals.raise();
}

void fill_chi(const py::buffer& out, const py::buffer& degrees, std::uint64_t first_row,
              const std::vector<std::uint64_t>& seeds, std::uint32_t tag, int threads) {
  const py::buffer_info to = out.request(/*writable=*/true), from = degrees.request();
  if (to.ndim != 2 || to.shape[0] != static_cast<py::ssize_t>(seeds.size())) {
    throw py::value_error("out: expected [runs, rows], a seed for each run");
  }
  const auto rows = static_cast<std::size_t>(to.shape[1]);
  auto* const chis = bindings::contiguous_data<double>(to, {seeds.size(), rows}, "out", "float64");
  const auto* const given =
      bindings::contiguous_data<double>(from, {seeds.size(), rows}, "degrees", "float64");
  // A copy, since another thread may change the array after this check.
  const std::vector<double> freedom(given, given + seeds.size() * rows);
  // Beyond, a count is no longer exact; at infinity no draw would ever be accepted.
  const auto in_range = [](double degree) { return degree >= 1.0 && degree <= 0x1p53; };
  if (!std::all_of(freedom.begin(), freedom.end(), in_range)) {
    throw py::value_error("degrees: expected numbers in 1 .. 2^53");
  }
  const py::gil_scoped_release released;
  mmcl::chi(seeds, tag, first_row, freedom.data(), rows, chis, threads);
}

std::vector<std::string> target_names() {
  std::vector<std::string> names;
  for (const mmcl::Target* target : mmcl::targets()) names.emplace_back(target->name);
  return names;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  using py::arg;
  m.doc() =
      "Native core of mmcl_fast: the random stream of docs/stream.md, passes over scores, training "
      "runs, logistic heads.";
  mmcl::targets();  // an import of a core whose arithmetic is not exact fails
  m.def("fill_normal", &fill_normal, "Fill a [runs, samples, dims] buffer with scaled normals.",
        arg("out"), py::kw_only(), arg("start"), arg("seed"), arg("tag"), arg("epoch"),
        arg("scale"), arg("threads"), arg("target") = "auto");
  m.def("fill_words", &fill_words, "Fill a [runs, samples, dims] uint32 buffer with raw words.",
        arg("out"), py::kw_only(), arg("start"), arg("seed"), arg("tag"), arg("epoch"),
        arg("threads"), arg("target") = "auto");
  m.def("fill_normal_runs", &fill_normal_runs,
        "Fill `out` with normals: its runs are run 0 of streams with these seeds and scales.",
        arg("out"), py::kw_only(), arg("seeds"), arg("scales"), arg("tag"), arg("epoch"),
        arg("threads"), arg("target") = "auto");
  m.def("fill_word_runs", &fill_word_runs,
        "Fill `out` with raw words: its runs are run 0 of streams with these seeds.", arg("out"),
        py::kw_only(), arg("seeds"), arg("tag"), arg("epoch"), arg("threads"),
        arg("target") = "auto");
  m.def("streaming_gram", &streaming_gram, "Write X X^T of rows of a stream; see csrc/core/gram.h.",
        arg("out"), py::kw_only(), arg("start"), arg("dims"), arg("seed"), arg("tag"), arg("epoch"),
        arg("scale"), arg("threads"), arg("target") = "auto");
  m.def("fill_chi", &fill_chi, "Fill a [runs, rows] buffer with chi variates; csrc/core/chi.h.",
        arg("out"), arg("degrees"), py::kw_only(), arg("first_row"), arg("seeds"), arg("tag"),
        arg("threads"));
  bind_contrast(m);
  bind_heads(m);
  bind_softmax(m);
  bind_trajectories(m);
  bind_variants(m);
  m.def("targets", &target_names, "Instruction sets this machine can run, slowest first.");
  m.def(
      "active_target", [] { return mmcl::find_target("auto").name; },
      "The instruction set in use: the fastest, unless MMCL_CPU_TARGET names another.");
}

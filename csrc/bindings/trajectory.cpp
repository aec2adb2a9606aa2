// Training runs for Python: checks and holds every buffer, then releases the GIL.
#include "../core/trajectory.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "../core/embed.h"
#include "../core/inner_products.h"
#include "../core/target.h"
#include "arrays.h"
#include "trajectory.h"

namespace py = pybind11;

namespace {

using mmcl::bindings::HeldArrays;

// The data of a contiguous float32 array of a given shape.
float* floats_of(HeldArrays& held, const py::buffer& buffer, const std::vector<std::size_t>& shape,
                 const std::string& name, bool writable) {
  return held.contiguous<float>(buffer, shape, name, "float32", writable);
}

using Rows = std::pair<py::buffer, std::optional<std::vector<std::size_t>>>;

// Pointers to the rows of arrays [k, dims], in the order given with each array, if any.
std::vector<const float*> rows_of(HeldArrays& held, const std::vector<Rows>& groups,
                                  std::size_t& dims, const std::string& name) {
  std::vector<const float*> rows;
  for (const auto& [buffer, order] : groups) {
    const py::buffer_info& info = held.hold(buffer, /*writable=*/false);
    if (info.ndim != 2) throw py::value_error(name + ": expected arrays [rows, dims]");
    const auto count = static_cast<std::size_t>(info.shape[0]);
    if (rows.empty() && dims == 0) dims = static_cast<std::size_t>(info.shape[1]);
    const float* const first = floats_of(held, buffer, {count, dims}, name, /*writable=*/false);
    const std::size_t selected = order ? order->size() : count;
    for (std::size_t i = 0; i < selected; ++i) {
      const std::size_t row = order ? (*order)[i] : i;
      if (row >= count) throw py::value_error(name + ": expected an order of existing rows");
      rows.push_back(first + row * dims);
    }
  }
  return rows;
}

// Results, left and right rows of one run, and the number of rows that both lists share.
using Job = std::tuple<std::vector<py::buffer>, std::vector<Rows>, std::vector<Rows>, std::size_t>;

struct JobRows {
  std::vector<const float*> left, right;
  std::vector<float*> out;
  std::size_t dims = 0;

  JobRows(HeldArrays& held, const Job& job) {
    left = rows_of(held, std::get<1>(job), dims, "left");
    right = rows_of(held, std::get<2>(job), dims, "right");
    for (const py::buffer& buffer : std::get<0>(job)) {
      const py::buffer_info& info = held.hold(buffer, /*writable=*/true);
      const std::size_t count = info.ndim == 2 ? static_cast<std::size_t>(info.shape[0]) : 0;
      float* const first = floats_of(held, buffer, {count, right.size()}, "out", /*writable=*/true);
      for (std::size_t i = 0; i < count; ++i) out.push_back(first + i * right.size());
    }
    if (out.size() != left.size()) throw py::value_error("out: expected a row for each of left");
  }
};

void products(const std::vector<Job>& jobs, int threads, const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  HeldArrays held;
  std::vector<JobRows> rows;
  rows.reserve(jobs.size());
  for (const Job& job : jobs) rows.emplace_back(held, job);
  std::vector<mmcl::InnerProducts> all;
  for (std::size_t k = 0; k < jobs.size(); ++k) {
    const JobRows& r = rows[k];
    all.push_back({r.left.data(), r.left.size(), r.right.data(), r.right.size(),
                   std::get<3>(jobs[k]), r.dims, r.out.data()});
  }
  const py::gil_scoped_release released;
  mmcl::inner_products(target, all, threads);
}

// Rows of the embeddings for each run's samples, [runs, samples]: a copy, since another thread may
// change the array after this check.
std::vector<std::int64_t> places_of(const py::buffer& places, std::size_t runs,
                                    std::size_t samples) {
  const py::buffer_info info = places.request();
  const auto* const rows = static_cast<const std::int64_t*>(info.ptr);
  const auto size = static_cast<py::ssize_t>(samples);
  if (!info.item_type_is_equivalent_to<std::int64_t>() || info.ndim != 2 ||
      info.shape[0] != static_cast<py::ssize_t>(runs) || info.shape[1] != size ||
      (runs > 1 && info.strides[0] != info.itemsize * size) ||
      (size > 1 && info.strides[1] != info.itemsize)) {
    throw py::value_error("places: expected contiguous int64 [runs, samples]");
  }
  std::vector<std::int64_t> copy(rows, rows + runs * samples);
  const auto outside = [size](std::int64_t row) { return row < 0 || row >= size; };
  if (std::any_of(copy.begin(), copy.end(), outside)) {
    throw py::value_error("places: expected rows of out");
  }
  return copy;
}

void embed(const py::buffer& out, const py::buffer& start, const py::buffer& labels,
           const std::optional<py::buffer>& places, int q, const std::optional<py::buffer>& moved,
           const std::optional<py::buffer>& gram, int threads, const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  HeldArrays held;
  const py::buffer_info& info = held.hold(out, /*writable=*/true);
  const py::buffer_info& given = held.hold(start, /*writable=*/false);
  if (info.ndim != 3 || given.ndim != 3) throw py::value_error("out, start: expected three axes");
  const auto axis = [](const py::buffer_info& of, int k) {
    return static_cast<std::size_t>(of.shape[static_cast<std::size_t>(k)]);
  };
  const std::size_t runs = axis(info, 0), samples = axis(info, 1), m = axis(info, 2);
  mmcl::EmbedShape shape{samples, m, q, axis(given, 2), 0};
  if (shape.stride <= samples) throw py::value_error("start: expected a column for the signal");
  if (moved.has_value() != gram.has_value()) throw py::value_error("moved: expected with gram");
  const float *products = nullptr, *coefficients = nullptr;
  if (moved) {
    const py::buffer_info& columns = held.hold(*gram, /*writable=*/false);
    shape.columns = columns.ndim == 3 ? axis(columns, 1) : 0;
    products = floats_of(held, *gram, {runs, shape.columns, samples + 1}, "gram", false);
    coefficients = floats_of(held, *moved, {runs, m, shape.columns}, "moved", false);
  }
  const std::vector<std::int64_t> rows =
      places ? places_of(*places, runs, samples) : std::vector<std::int64_t>();
  const mmcl::Embedding first{floats_of(held, start, {runs, m, shape.stride}, "start", false),
                              coefficients,
                              products,
                              floats_of(held, labels, {runs, samples}, "labels", false),
                              places ? rows.data() : nullptr,
                              floats_of(held, out, {runs, samples, m}, "out", /*writable=*/true)};
  std::vector<mmcl::Embedding> all(runs, first);
  for (std::size_t r = 0; r < runs; ++r) {
    all[r].start += r * m * shape.stride;
    all[r].labels += r * samples;
    all[r].out += r * samples * m;
    if (places) all[r].out_rows += r * samples;
    if (!moved) continue;
    all[r].coefficients += r * m * shape.columns;
    all[r].gram += r * shape.columns * (samples + 1);
  }
  const py::gil_scoped_release released;
  mmcl::embed(target, shape, all, threads);
}

void train(const std::vector<py::buffer>& gram, const std::vector<py::buffer>& z,
           const std::vector<py::buffer>& moved, const std::vector<std::size_t>& positives,
           const std::vector<float>& tau, const std::vector<float>& eta, const py::buffer& curves,
           std::size_t n, std::size_t m, int q, bool update, int threads,
           const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  const bool multi = gram.size() == 2;
  if (gram.empty() || gram.size() > 2 || z.size() != gram.size() || moved.size() != gram.size()) {
    throw py::value_error("gram, z, moved: expected one or two modalities");
  }
  if (tau.size() != positives.size() || eta.size() != positives.size()) {
    throw py::value_error("tau, eta: expected one for each run");
  }
  const std::size_t runs = positives.size(), vectors = n + 1 + (multi ? 0 : n);
  HeldArrays held;
  const py::buffer_info& info = held.hold(curves, /*writable=*/true);
  const std::size_t epochs = info.ndim == 3 ? static_cast<std::size_t>(info.shape[2]) : 0;
  float* const measured = floats_of(held, curves, {3, runs, epochs}, "curves", /*writable=*/true);
  std::vector<mmcl::TrajectoryRun> all(runs);
  for (std::size_t k = 0; k < gram.size(); ++k) {
    const float* const given = floats_of(held, gram[k], {runs, n + 1, vectors}, "gram", false);
    float* const state = floats_of(held, z[k], {runs, m, vectors}, "z", true);
    float* const coefficients = floats_of(held, moved[k], {runs, m, n + 1}, "moved", true);
    for (std::size_t r = 0; r < runs; ++r) {
      all[r].modalities[k] = {given + r * (n + 1) * vectors, state + r * m * vectors,
                              coefficients + r * m * (n + 1)};
    }
  }
  for (std::size_t r = 0; r < runs; ++r) {
    float* const first = measured + r * epochs;
    all[r].positives = positives[r];
    all[r].tau = tau[r];
    all[r].eta = eta[r];
    all[r].loss = first;
    all[r].signal = first + runs * epochs;
    all[r].noise = first + 2 * runs * epochs;
  }
  const py::gil_scoped_release released;
  mmcl::train_trajectories(target, {n, m, q, multi, epochs, update}, all, threads);
}

}  // namespace

void bind_trajectories(py::module_& m) {
  using py::arg;
  m.def("embed", &embed, "Write hbar of samples; see csrc/core/embed.h.", arg("out"), arg("start"),
        arg("labels"), arg("places") = py::none(), py::kw_only(), arg("q"),
        arg("moved") = py::none(), arg("gram") = py::none(), arg("threads"),
        arg("target") = "auto");
  m.def("inner_products", &products,
        "Write <left_i, right_j> of float32 rows, for jobs (out, left, right, shared); see "
        "csrc/core/inner_products.h.",
        arg("jobs"), py::kw_only(), arg("threads"), arg("target") = "auto");
  m.def("train_trajectories", &train,
        "Train runs in coefficient space; see csrc/core/trajectory.h.", arg("gram"), arg("z"),
        arg("moved"), arg("positives"), arg("tau"), arg("eta"), arg("curves"), py::kw_only(),
        arg("n"), arg("m"), arg("q"), arg("update"), arg("threads"), arg("target") = "auto");
}

// Training runs for Python: checks every buffer's layout, then releases the GIL.
#include "../core/trajectory.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "../core/embed.h"
#include "../core/inner_products.h"
#include "../core/target.h"
#include "trajectory.h"

namespace py = pybind11;

namespace {

// The data of a contiguous float32 array of a given shape.
float* floats_of(const py::buffer& buffer, const std::vector<std::size_t>& shape,
                 const std::string& name, bool writable) {
  const py::buffer_info info = buffer.request(writable);
  bool fits = info.item_type_is_equivalent_to<float>() &&
              info.ndim == static_cast<py::ssize_t>(shape.size());
  py::ssize_t stride = sizeof(float);
  std::string expected;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    const auto size = static_cast<py::ssize_t>(shape[axis]);
    fits = fits && info.shape[axis] == size && (size <= 1 || info.strides[axis] == stride);
    stride *= size;
    expected = std::to_string(shape[axis]) + (expected.empty() ? "" : ", ") + expected;
  }
  if (!fits) throw py::value_error(name + ": expected contiguous float32 [" + expected + "]");
  return static_cast<float*>(info.ptr);
}

using Rows = std::pair<py::buffer, std::optional<std::vector<std::size_t>>>;

// Pointers to the rows of arrays [k, dims], each in an order of its own if it has one.
std::vector<const float*> rows_of(const std::vector<Rows>& groups, std::size_t& dims,
                                  const std::string& name) {
  std::vector<const float*> rows;
  for (const auto& [buffer, order] : groups) {
    const py::buffer_info info = buffer.request();
    if (info.ndim != 2) throw py::value_error(name + ": expected arrays [rows, dims]");
    const auto count = static_cast<std::size_t>(info.shape[0]);
    if (rows.empty() && dims == 0) dims = static_cast<std::size_t>(info.shape[1]);
    const float* const first = floats_of(buffer, {count, dims}, name, /*writable=*/false);
    const std::size_t wanted = order ? order->size() : count;
    for (std::size_t i = 0; i < wanted; ++i) {
      const std::size_t row = order ? (*order)[i] : i;
      if (row >= count) throw py::value_error(name + ": expected an order of existing rows");
      rows.push_back(first + row * dims);
    }
  }
  return rows;
}

void products(const std::vector<py::buffer>& out, const std::vector<Rows>& left,
              const std::vector<Rows>& right, std::size_t shared, const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  std::size_t dims = 0;
  const auto rows = rows_of(left, dims, "left"), columns = rows_of(right, dims, "right");
  std::vector<float*> results;
  for (const py::buffer& buffer : out) {
    const py::buffer_info info = buffer.request();
    const std::size_t count = info.ndim == 2 ? static_cast<std::size_t>(info.shape[0]) : 0;
    float* const first = floats_of(buffer, {count, columns.size()}, "out", /*writable=*/true);
    for (std::size_t i = 0; i < count; ++i) results.push_back(first + i * columns.size());
  }
  if (results.size() != rows.size()) throw py::value_error("out: expected a row for each of left");
  const py::gil_scoped_release released;
  mmcl::inner_products(target, {rows.data(), rows.size(), columns.data(), columns.size(), shared,
                                dims, results.data()});
}

void embed(const py::buffer& out, const py::buffer& start, const py::buffer& labels,
           const std::vector<std::size_t>& places, int q, const std::optional<py::buffer>& moved,
           const std::optional<py::buffer>& gram, const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  mmcl::Embedding work{};
  const py::buffer_info info = out.request(), given = start.request();
  if (info.ndim != 2 || given.ndim != 2) throw py::value_error("out, start: expected two axes");
  work.samples = static_cast<std::size_t>(info.shape[0]);
  work.m = static_cast<std::size_t>(info.shape[1]);
  work.q = q;
  work.stride = static_cast<std::size_t>(given.shape[1]);
  if (work.stride <= work.samples) throw py::value_error("start: expected a column for the signal");
  work.out = floats_of(out, {work.samples, work.m}, "out", /*writable=*/true);
  work.start = floats_of(start, {work.m, work.stride}, "start", false);
  work.labels = floats_of(labels, {work.samples}, "labels", false);
  if (places.size() != work.samples) throw py::value_error("places: expected one for each sample");
  for (const std::size_t place : places) {
    if (place >= work.samples) throw py::value_error("places: expected rows of out");
  }
  work.places = places.data();
  if (moved.has_value() != gram.has_value()) throw py::value_error("moved: expected with gram");
  if (moved) {
    const py::buffer_info columns = gram->request();
    work.columns = columns.ndim == 2 ? static_cast<std::size_t>(columns.shape[0]) : 0;
    work.gram = floats_of(*gram, {work.columns, work.samples + 1}, "gram", false);
    work.moved = floats_of(*moved, {work.m, work.columns}, "moved", false);
  }
  const py::gil_scoped_release released;
  mmcl::embed(target, work);
}

void train(const std::vector<py::buffer>& gram, const std::vector<py::buffer>& z,
           const std::vector<py::buffer>& moved, const std::vector<std::size_t>& positives,
           const py::buffer& curves, std::size_t n, std::size_t m, int q, float tau, float eta,
           bool update, int threads, const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  const bool multi = gram.size() == 2;
  if (gram.empty() || gram.size() > 2 || z.size() != gram.size() || moved.size() != gram.size()) {
    throw py::value_error("gram, z, moved: expected one or two modalities");
  }
  const std::size_t runs = positives.size(), vectors = n + 1 + (multi ? 0 : n);
  const py::buffer_info info = curves.request();
  const std::size_t epochs = info.ndim == 3 ? static_cast<std::size_t>(info.shape[2]) : 0;
  float* const measured = floats_of(curves, {3, runs, epochs}, "curves", /*writable=*/true);
  std::vector<mmcl::TrajectoryRun> all(runs);
  for (std::size_t k = 0; k < gram.size(); ++k) {
    const float* const given = floats_of(gram[k], {runs, n + 1, vectors}, "gram", false);
    float* const state = floats_of(z[k], {runs, m, vectors}, "z", true);
    float* const coefficients = floats_of(moved[k], {runs, m, n + 1}, "moved", true);
    for (std::size_t r = 0; r < runs; ++r) {
      all[r].sides[k] = {given + r * (n + 1) * vectors, state + r * m * vectors,
                         coefficients + r * m * (n + 1)};
    }
  }
  for (std::size_t r = 0; r < runs; ++r) {
    float* const first = measured + r * epochs;
    all[r].positives = positives[r];
    all[r].loss = first;
    all[r].signal = first + runs * epochs;
    all[r].noise = first + 2 * runs * epochs;
  }
  const py::gil_scoped_release released;
  mmcl::train_trajectories(target, {n, m, q, multi, tau, eta, epochs, update}, all, threads);
}

}  // namespace

void bind_trajectories(py::module_& m) {
  using py::arg;
  m.def("embed", &embed, "Write hbar of samples; see csrc/core/embed.h.", arg("out"), arg("start"),
        arg("labels"), arg("places"), py::kw_only(), arg("q"), arg("moved") = py::none(),
        arg("gram") = py::none(), arg("target") = "auto");
  m.def("inner_products", &products,
        "Write <left_i, right_j> of float32 rows; see csrc/core/inner_products.h.", arg("out"),
        arg("left"), arg("right"), py::kw_only(), arg("shared") = 0, arg("target") = "auto");
  m.def("train_trajectories", &train, "Train runs in coefficient space; see csrc/core/trajectory.h.",
        arg("gram"), arg("z"), arg("moved"), arg("positives"), arg("curves"), py::kw_only(),
        arg("n"), arg("m"), arg("q"), arg("tau"), arg("eta"), arg("update"), arg("threads"),
        arg("target") = "auto");
}

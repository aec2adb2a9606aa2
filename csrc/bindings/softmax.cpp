// Python surface of csrc/core/softmax.h: checks buffers, releases the GIL.
#include "../core/softmax.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "float_arrays.h"
#include "softmax.h"

namespace py = pybind11;

namespace {

using mmcl::bindings::FloatMatrix;
using mmcl::bindings::FloatVector;
using mmcl::bindings::shape_of;

void check_threads(int threads) {
  if (threads < 1) {
    throw py::value_error("threads: expected at least 1, got " + std::to_string(threads));
  }
}

using Softmax = decltype(mmcl::softmax_rows);

template <Softmax kPass, int kAxis>
void softmax(const py::buffer& scores, const std::optional<py::buffer>& terms,
             const py::buffer& top, const py::buffer& total, int threads,
             const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  check_threads(threads);
  const FloatMatrix from(scores, "scores", false);
  std::optional<FloatMatrix> to;
  if (terms) {
    to.emplace(*terms, "terms", true);
    if (to->info.shape != from.info.shape) {
      throw py::value_error("terms: expected the shape of scores, " + shape_of(from.info) +
                            ", got " + shape_of(to->info));
    }
  }
  const FloatVector maxima(top, "top", from.info.shape[kAxis], true);
  const FloatVector sums(total, "total", from.info.shape[kAxis], true);
  const py::gil_scoped_release released;
  kPass(target, from.matrix<const float>(),
        to ? to->matrix<float>() : mmcl::Matrix<float>{nullptr, 0, 0, 0},
        {maxima.data(), sums.data()}, threads);
}

void softmax_both(const py::buffer& scores, const py::buffer& row_top, const py::buffer& row_total,
                  const py::buffer& column_top, const py::buffer& column_total, int threads,
                  const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  check_threads(threads);
  const FloatMatrix from(scores, "scores", false);
  const FloatVector row_maxima(row_top, "row_top", from.info.shape[0], true);
  const FloatVector row_sums(row_total, "row_total", from.info.shape[0], true);
  const FloatVector column_maxima(column_top, "column_top", from.info.shape[1], true);
  const FloatVector column_sums(column_total, "column_total", from.info.shape[1], true);
  const py::gil_scoped_release released;
  mmcl::softmax_both(target, from.matrix<const float>(), {row_maxima.data(), row_sums.data()},
                     {column_maxima.data(), column_sums.data()}, threads);
}

void softmax_weights(const py::buffer& scores, const py::buffer& row_top,
                     const py::buffer& row_scale, const std::optional<py::buffer>& column_top,
                     const std::optional<py::buffer>& column_scale, int threads,
                     const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  check_threads(threads);
  const FloatMatrix in_place(scores, "scores", true);
  const FloatVector maxima(row_top, "row_top", in_place.info.shape[0], false);
  const FloatVector scales(row_scale, "row_scale", in_place.info.shape[0], false);
  if (column_top.has_value() != column_scale.has_value()) {
    throw py::value_error("column_top, column_scale: expected both or neither, got one");
  }
  std::optional<FloatVector> column_maxima, column_scales;
  mmcl::MaxScale columns{};
  if (column_top) {
    column_maxima.emplace(*column_top, "column_top", in_place.info.shape[1], false);
    column_scales.emplace(*column_scale, "column_scale", in_place.info.shape[1], false);
    columns = {column_maxima->data(), column_scales->data()};
  }
  const py::gil_scoped_release released;
  mmcl::softmax_weights(target, in_place.matrix<float>(), {maxima.data(), scales.data()},
                        column_top ? &columns : nullptr, threads);
}

void softplus_rows(const py::buffer& scores, const py::buffer& total, int threads,
                   const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  check_threads(threads);
  const FloatMatrix in_place(scores, "scores", true);
  const FloatVector sums(total, "total", in_place.info.shape[0], true);
  const py::gil_scoped_release released;
  mmcl::softplus_rows(target, in_place.matrix<float>(), sums.data(), threads);
}

}  // namespace

void bind_softmax(py::module_& m) {
  using py::arg;
  m.def("softmax_rows", &softmax<mmcl::softmax_rows, 0>,
        "Raise top [c], write total [c] and terms of scores [c, M]; see csrc/core/softmax.h.",
        arg("scores"), arg("terms").none(true), arg("top"), arg("total"), py::kw_only(),
        arg("threads"), arg("target") = "auto");
  m.def("softmax_columns", &softmax<mmcl::softmax_columns, 1>,
        "softmax_rows along columns, with top and total [M].", arg("scores"),
        arg("terms").none(true), arg("top"), arg("total"), py::kw_only(), arg("threads"),
        arg("target") = "auto");
  m.def("softmax_both", &softmax_both,
        "The maxima and sums of softmax_rows and softmax_columns, without terms.", arg("scores"),
        arg("row_top"), arg("row_total"), arg("column_top"), arg("column_total"), py::kw_only(),
        arg("threads"), arg("target") = "auto");
  m.def("softmax_weights", &softmax_weights,
        "In place: 2^(s - row_top) row_scale + 2^(s - column_top) column_scale.", arg("scores"),
        arg("row_top"), arg("row_scale"), arg("column_top").none(true),
        arg("column_scale").none(true), py::kw_only(), arg("threads"), arg("target") = "auto");
  m.def("softplus_rows", &softplus_rows,
        "In place: 1 / (1 + e^-x), x = scores log 2; writes the row sums of log(1 + e^x).",
        arg("scores"), arg("total"), py::kw_only(), arg("threads"), arg("target") = "auto");
}

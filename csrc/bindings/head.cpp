// Logistic heads for Python: checks every buffer's layout, then releases the GIL.
#include "../core/head.h"

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "../core/target.h"
#include "arrays.h"
#include "head.h"

namespace py = pybind11;

namespace {

// A contiguous array that stays held for as long as the call runs without the GIL.
struct ContiguousBuffer {
  py::buffer_info info;
  ContiguousBuffer(const py::buffer& buffer, const char* name, bool writable)
      : info(buffer.request(writable)), name_(name) {}

  template <class T>
  T* data(const std::vector<std::size_t>& shape) const {
    return mmcl::bindings::contiguous_data<T>(info, shape, name_,
                                              py::format_descriptor<T>::format());
  }

 private:
  const char* name_;
};

struct BatchShape {
  std::size_t problems, n, p;
};

BatchShape sizes_of(const py::buffer_info& features) {
  if (features.ndim != 3) throw py::value_error("features: expected [problems, n, p]");
  const auto size = [&](int axis) { return static_cast<std::size_t>(features.shape[axis]); };
  return {size(0), size(1), size(2)};
}

template <class T>
mmcl::HeadBatch<T> batch_of(const BatchShape& s, const ContiguousBuffer& features,
                            const ContiguousBuffer& labels, const ContiguousBuffer& weight,
                            const ContiguousBuffer& bias) {
  return {s.problems,
          features.data<T>({s.problems, s.n, s.p}),
          labels.data<float>({s.problems, s.n}),
          weight.data<double>({s.problems, s.p}),
          bias.data<double>({s.problems}),
          nullptr,
          nullptr,
          nullptr};
}

void fit(const py::buffer& features, const py::buffer& labels, const py::buffer& weight,
         const py::buffer& bias, const py::buffer& converged, const py::buffer& steps, double l2,
         double tolerance, std::size_t most_steps, int threads, const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  const ContiguousBuffer f(features, "features", false), y(labels, "labels", false);
  const ContiguousBuffer w(weight, "weight", true), b(bias, "bias", true);
  const ContiguousBuffer c(converged, "converged", true), i(steps, "steps", true);
  const BatchShape s = sizes_of(f.info);
  const auto run = [&](auto batch) {
    batch.converged = c.data<bool>({s.problems});
    batch.steps = i.data<std::int64_t>({s.problems});
    const py::gil_scoped_release released;
    mmcl::fit_heads(target, {s.n, s.p, l2, tolerance, most_steps}, batch, threads);
  };
  if (f.info.item_type_is_equivalent_to<float>()) return run(batch_of<float>(s, f, y, w, b));
  run(batch_of<double>(s, f, y, w, b));
}

void score(const py::buffer& features, const py::buffer& labels, const py::buffer& weight,
           const py::buffer& bias, const py::buffer& share, int threads,
           const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  const ContiguousBuffer f(features, "features", false), y(labels, "labels", false);
  const ContiguousBuffer w(weight, "weight", false), b(bias, "bias", false),
      a(share, "share", true);
  const BatchShape s = sizes_of(f.info);
  const auto run = [&](auto batch) {
    batch.share = a.data<double>({s.problems});
    const py::gil_scoped_release released;
    mmcl::score_heads(target, s.n, s.p, batch, threads);
  };
  if (f.info.item_type_is_equivalent_to<float>()) return run(batch_of<float>(s, f, y, w, b));
  run(batch_of<double>(s, f, y, w, b));
}

}  // namespace

void bind_heads(py::module_& m) {
  using py::arg;
  m.def("fit_heads", &fit, "Fit logistic heads; see csrc/core/head.h.", arg("features"),
        arg("labels"), arg("weight"), arg("bias"), arg("converged"), arg("steps"), py::kw_only(),
        arg("l2"), arg("tolerance"), arg("most_steps"), arg("threads"), arg("target") = "auto");
  m.def("score_heads", &score, "Write the accuracy of heads; see csrc/core/head.h.",
        arg("features"), arg("labels"), arg("weight"), arg("bias"), arg("share"), py::kw_only(),
        arg("threads"), arg("target") = "auto");
}

// Training runs of model variants for Python: checks and holds every buffer, then releases the GIL.
#include "../core/variant.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <deque>
#include <string>
#include <tuple>
#include <vector>

#include "../core/target.h"
#include "arrays.h"
#include "signals.h"
#include "variant.h"

namespace py = pybind11;

namespace {

using mmcl::bindings::HeldArrays;

// Arrays of all runs, [runs, ...], and the part of one of them.
class RunArrays {
 public:
  explicit RunArrays(std::size_t runs) : runs_(runs) {}

  template <class T>
  T* of(const py::buffer& buffer, std::vector<std::size_t> shape, const std::string& name,
        bool writable) {
    shape.insert(shape.begin(), runs_);
    const bool real = std::is_floating_point_v<T>;
    return held_.contiguous<T>(buffer, shape, name,
                               (real ? "float" : "int") + std::to_string(8 * sizeof(T)), writable);
  }

  // A copy of indices, since another thread may change the array after they are checked.
  const std::int32_t* indices(const py::buffer& buffer, std::vector<std::size_t> shape,
                              const std::string& name) {
    const auto* const first = of<std::int32_t>(buffer, shape, name, /*writable=*/false);
    std::size_t count = runs_;
    for (const std::size_t size : shape) count *= size;
    return copies_.emplace_back(first, first + count).data();
  }

  const py::buffer_info& hold(const py::buffer& buffer) {
    return held_.hold(buffer, /*writable=*/false);
  }

 private:
  std::size_t runs_;
  HeldArrays held_;
  std::deque<std::vector<std::int32_t>> copies_;
};

// Inner products (K, or squares, with_view and partner), z and coefficients.
using Modality = std::tuple<std::vector<py::buffer>, py::buffer, py::buffer>;

void check_modalities(const std::vector<Modality>& given) {
  for (const auto& [products, z, moved] : given) {
    if (products.size() != 1 && products.size() != 3) {
      throw py::value_error("products: expected K, or squares, with_view and partner");
    }
  }
  const auto is_other = [&](const Modality& modality) {
    return std::get<0>(modality).size() != std::get<0>(given[0]).size();
  };
  if (given.empty() || given.size() > 3 || std::any_of(given.begin(), given.end(), is_other)) {
    throw py::value_error("modalities: expected one to three of the same form");
  }
}

void fill_modality(RunArrays& arrays, const mmcl::VariantSettings& s, const Modality& modality,
                   std::size_t k, std::vector<mmcl::VariantRun>& runs) {
  const mmcl::VariantSizes sizes = mmcl::sizes_of(s);
  const auto& [given, start, coefficients] = modality;
  mmcl::VariantProducts products{};
  if (given.size() == 1) {
    products.all = arrays.of<float>(given[0], {sizes.columns, sizes.vectors}, "gram", false);
  } else {
    products.squares = arrays.of<float>(given[0], {sizes.vectors}, "squares", false);
    products.with_view = arrays.of<float>(given[1], {s.n}, "with_view", false);
    products.partner = arrays.indices(given[2], {s.n}, "partner");
  }
  float* const z = arrays.of<float>(start, {s.m, sizes.vectors}, "z", true);
  float* const moved = arrays.of<float>(coefficients, {s.m, sizes.columns}, "moved", true);
  const auto at = [](auto* first, std::size_t step) {
    return first == nullptr ? nullptr : first + step;
  };
  for (std::size_t r = 0; r < runs.size(); ++r) {
    runs[r].modalities[k] = {{at(products.all, r * sizes.columns * sizes.vectors),
                              at(products.squares, r * sizes.vectors),
                              at(products.with_view, r * s.n), at(products.partner, r * s.n)},
                             z + r * s.m * sizes.vectors,
                             moved + r * s.m * sizes.columns};
  }
}

void fill_codes(RunArrays& arrays, const mmcl::VariantSettings& s, const py::buffer& axis,
                const py::buffer& sign, const py::buffer& code,
                const std::vector<std::size_t>& counts, std::vector<mmcl::VariantRun>& runs) {
  const py::buffer_info& info = arrays.hold(axis);
  const std::size_t room = info.ndim == 3 ? static_cast<std::size_t>(info.shape[2]) : 0;
  const auto* const axes = arrays.indices(axis, {s.patches, room}, "axis");
  const auto* const signs = arrays.of<float>(sign, {s.patches, room}, "sign", false);
  const std::size_t kinds = mmcl::kinds_of_samples(s);
  const auto* const codes = arrays.indices(code, {kinds, s.n}, "code");
  for (std::size_t r = 0; r < runs.size(); ++r) {
    runs[r].codes = {
        counts[r], room, axes + r * s.patches * room, signs + r * s.patches * room, {}};
    for (std::size_t k = 0; k < kinds; ++k) runs[r].codes.of[k] = codes + (kinds * r + k) * s.n;
  }
}

// Settings that differ between runs.
struct Scalars {
  const std::vector<float>& tau;
  const std::vector<float>& eta;
  const std::vector<float>& eta_tau;
};

void train(const std::vector<Modality>& given,
           const std::tuple<py::buffer, py::buffer, py::buffer>& codes,
           const std::vector<std::size_t>& code_counts, const py::buffer& labels,
           const py::buffer& targets, const Scalars& scalars, const py::buffer& log_inverse_tau,
           const py::buffer& curves, mmcl::VariantSettings s, int threads,
           const std::string& target_name) {
  const mmcl::Target& target = mmcl::find_target(target_name);
  check_modalities(given);
  const std::size_t count = code_counts.size();
  for (const auto* const list : {&scalars.tau, &scalars.eta, &scalars.eta_tau}) {
    if (list->size() != count)
      throw py::value_error("tau, eta, eta_tau: expected one for each run");
  }
  s.modalities = given.size();
  std::vector<mmcl::VariantRun> runs(count);
  HeldArrays held;
  const py::buffer_info& info = held.hold(curves, /*writable=*/true);
  s.epochs = info.ndim == 3 ? static_cast<std::size_t>(info.shape[2]) : 0;
  float* const measured =
      held.contiguous<float>(curves, {4, count, s.epochs}, "curves", "float32", true);
  RunArrays arrays(count);
  fill_codes(arrays, s, std::get<0>(codes), std::get<1>(codes), std::get<2>(codes), code_counts,
             runs);
  const std::size_t kinds = mmcl::kinds_of_samples(s);
  const auto* const label = arrays.of<float>(labels, {kinds, s.n}, "labels", false);
  const auto* const told = arrays.of<float>(targets, {s.n}, "targets", false);
  auto* const log_tau = arrays.of<double>(log_inverse_tau, {}, "log_inverse_tau", true);
  for (std::size_t r = 0; r < count; ++r) {
    mmcl::VariantRun& run = runs[r];
    for (std::size_t k = 0; k < kinds; ++k) run.labels[k] = label + (kinds * r + k) * s.n;
    run.targets = told + r * s.n;
    run.tau = scalars.tau[r];
    run.eta = scalars.eta[r];
    run.eta_tau = scalars.eta_tau[r];
    run.log_inverse_tau = log_tau + r;
    float* const first = measured + r * s.epochs;
    const std::size_t curve = count * s.epochs;
    run.loss = first;
    run.signal = first + curve;
    run.noise = first + 2 * curve;
    run.temperature = first + 3 * curve;
  }
  for (std::size_t k = 0; k < given.size(); ++k) fill_modality(arrays, s, given[k], k, runs);
  mmcl::bindings::Signals signals;
  {
    const py::gil_scoped_release released;
    mmcl::train_variants(target, s, runs, threads, [&] { return signals.go_on(); });
  }
  signals.raise();
}

}  // namespace

void bind_variants(py::module_& m) {
  using py::arg;
  m.def(
      "train_variants",
      [](const std::vector<Modality>& modalities,
         const std::tuple<py::buffer, py::buffer, py::buffer>& codes,
         const std::vector<std::size_t>& code_counts, const py::buffer& labels,
         const py::buffer& targets, const std::vector<float>& tau, const std::vector<float>& eta,
         const std::vector<float>& eta_tau, const py::buffer& log_inverse_tau,
         const py::buffer& curves, std::size_t n, std::size_t neurons, int q, bool logistic,
         bool all_negatives, bool key_gradients, bool cosine, bool learned_tau, std::size_t axes,
         std::size_t class_axes, std::size_t patches, bool update, int threads,
         const std::string& target) {
        const mmcl::VariantSettings settings{
            n,      neurons,     q,    /*modalities=*/1, logistic, all_negatives, key_gradients,
            cosine, learned_tau, axes, class_axes,       patches,  /*epochs=*/0,  update};
        train(modalities, codes, code_counts, labels, targets, {tau, eta, eta_tau}, log_inverse_tau,
              curves, settings, threads, target);
      },
      "Train runs of model variants in coefficient space; see csrc/core/variant.h. A modality is\n"
      "(products, z, moved): products are [K], or [squares, with_view, partner]. Codes are (axis,\n"
      "sign, code).",
      arg("modalities"), arg("codes"), arg("code_counts"), arg("labels"), arg("targets"),
      arg("tau"), arg("eta"), arg("eta_tau"), arg("log_inverse_tau"), arg("curves"), py::kw_only(),
      arg("n"), arg("m"), arg("q"), arg("logistic"), arg("all_negatives"), arg("key_gradients"),
      arg("cosine"), arg("learned_tau"), arg("axes"), arg("class_axes"), arg("patches"),
      arg("update"), arg("threads"), arg("target") = "auto");
}

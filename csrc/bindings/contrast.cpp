// Python surface of csrc/core/contrast.h, by addresses: `mmcl_fast/losses/torch_backend/dense.py`
// alone calls it, with tensors whose sizes it made. Checked buffers would take as long as the
// arithmetic of a small batch. Releases the GIL where the arithmetic is worth it.
#include "../core/contrast.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "../core/rows.h"
#include "contrast.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;  // 0: none
using Sizes = std::tuple<std::size_t, std::size_t, std::size_t, std::size_t>;

constexpr std::size_t kScoresWithGil = 1 << 14;  // about 10 microseconds

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);  // NOLINT(performance-no-int-to-ptr)
}

mmcl::Matrix<float> matrix(Address address, std::size_t rows, std::size_t columns) {
  return {at<float>(address), rows, columns, static_cast<std::ptrdiff_t>(columns)};
}

mmcl::Matrix<const float> constant(Address address, std::size_t rows, std::size_t columns) {
  return {at<const float>(address), rows, columns, static_cast<std::ptrdiff_t>(columns)};
}

// A result for each row, or their sum.
class PerRow {
 public:
  PerRow(Address out, bool sum, std::size_t n) : out_(at<float>(out)), sum_(sum) {
    if (out_ != nullptr && sum_) rows_.resize(n);
  }
  float* rows() { return sum_ && out_ != nullptr ? rows_.data() : out_; }
  void add_up(double factor) const {
    if (out_ == nullptr || !sum_) return;
    *out_ = static_cast<float>(factor * std::accumulate(rows_.begin(), rows_.end(), 0.0));
  }

 private:
  float* out_;
  bool sum_;
  std::vector<float> rows_;
};

mmcl::Form form_of(const std::string& name) {
  if (name == "softmax") return mmcl::Form::kSoftmax;
  if (name == "decoupled") return mmcl::Form::kDecoupled;
  if (name == "sigmoid") return mmcl::Form::kSigmoid;
  throw py::value_error("form: expected softmax, decoupled or sigmoid, got '" + name + "'");
}

// The scores and statistics of one contrast, for as many backward passes as it takes.
class DenseContrast {
 public:
  DenseContrast(const Sizes& sizes, Address scores, Address losses,
                const std::optional<double>& weight, const std::string& form,
                double inverse_temperature, double bias, double smoothing, Address hard,
                Address hard_counts, Address positive, Address query, Address positive_key,
                Address labels, Address key_labels, Address excluded, std::size_t extra,
                bool supervised, bool exclude_self, bool symmetric, bool same_rows,
                const std::string& target)
      : target_(mmcl::find_target(target)) {
    const auto [n, m, k, d] = sizes;
    if (extra > m) {
      throw py::value_error("extra: expected at most " + std::to_string(m) + ", got " +
                            std::to_string(extra));
    }
    if ((symmetric || same_rows) && n != m) {
      throw py::value_error("scores: expected as many rows as columns, got " + std::to_string(n) +
                            " and " + std::to_string(m));
    }
    if (supervised + (positive != 0) + (positive_key != 0) > 1) {
      throw py::value_error("positive, positive_key, supervised: expected at most one");
    }
    if ((labels == 0) != (key_labels == 0) || (supervised && labels == 0)) {
      throw py::value_error("labels, key_labels: expected both or neither, both if supervised");
    }
    if ((hard == 0) != (k == 0) || (hard_counts != 0 && hard == 0)) {
      throw py::value_error("hard: expected the products of hard negatives and their number");
    }
    if (n == 0) throw py::value_error("scores: expected at least one row");
    contrast_.form = form_of(form);
    contrast_.scores = matrix(scores, n, m);
    contrast_.hard = matrix(hard, n, k);
    contrast_.hard_counts = at<std::int64_t>(hard_counts);
    if (positive_key != 0) {
      products_.resize(n);
      mmcl::row_products(target_, constant(query, n, d), constant(positive_key, n, d),
                         products_.data());
      contrast_.positive_products = products_.data();
    }
    contrast_.labels = at<const std::int64_t>(labels);
    contrast_.key_labels = at<const std::int64_t>(key_labels);
    if (supervised) {  // read again in every backward pass, when the caller may have changed them
      labels_.assign(contrast_.labels, contrast_.labels + n);
      key_labels_.assign(contrast_.key_labels, contrast_.key_labels + (m - extra));
      contrast_.labels = labels_.data();
      contrast_.key_labels = key_labels_.data();
    }
    if (!supervised && positive == 0 && positive_key == 0) {
      if (n > m) throw py::value_error("scores: expected at least as many columns as rows");
      positive_.resize(n);
      std::iota(positive_.begin(), positive_.end(), std::int64_t{0});
    } else if (positive != 0) {
      // A copy: the caller's array may change between this check and the last backward pass.
      positive_.assign(at<const std::int64_t>(positive), at<const std::int64_t>(positive) + n);
      const auto last = static_cast<std::int64_t>(m);
      const bool inside = std::all_of(positive_.begin(), positive_.end(),
                                      [last](std::int64_t j) { return j >= 0 && j < last; });
      if (!inside) throw py::value_error("positive: expected columns of scores");
    }
    if (!positive_.empty()) contrast_.positive = positive_.data();
    contrast_.excluded = at<const bool>(excluded);
    contrast_.extra = extra;
    contrast_.supervised = supervised;
    contrast_.exclude_self = exclude_self;
    contrast_.symmetric = symmetric;
    contrast_.same_rows = same_rows;
    contrast_.inverse_temperature = inverse_temperature;
    contrast_.bias = bias;
    contrast_.smoothing = smoothing;
    if (contrast_.form == mmcl::Form::kSigmoid) {
      if (k > 0) throw py::value_error("hard: expected none of the sigmoid form");
      chances_.resize(n * m);
      contrast_.chances = {chances_.data(), n, m, static_cast<std::ptrdiff_t>(m)};
    }
    statistics_.resize(n * mmcl::kStatistics * (symmetric ? 2 : 1));
    without_gil([&] {
      PerRow out(losses, weight.has_value(), n);
      mmcl::contrast_losses(target_, contrast_, statistics_.data(), out.rows());
      out.add_up(weight.value_or(1.0));
    });
  }

  void weights(double upstream, Address upstream_rows, bool rows, bool columns, Address scores,
               Address hard, Address positive, Address temperature, double temperature_factor,
               Address bias) const {
    const auto& of = contrast_;
    const std::size_t n = of.scores.rows;
    if ((hard != 0) != (of.hard.columns > 0) ||
        (positive != 0) != (of.positive_products != nullptr)) {
      throw py::value_error("weights: expected outputs of the contrast's inputs");
    }
    without_gil([&] {
      std::vector<float> even;
      if (upstream_rows == 0) even.assign(n, static_cast<float>(upstream));
      const bool sum = upstream_rows == 0;
      PerRow of_temperature(temperature, sum, n), of_bias(bias, sum, n);
      const mmcl::ContrastWeights weights{matrix(scores, n, of.scores.columns),
                                          matrix(hard, n, of.hard.columns), at<float>(positive),
                                          of_temperature.rows(), of_bias.rows()};
      mmcl::contrast_weights(target_, of, statistics_.data(),
                             sum ? even.data() : at<float>(upstream_rows), rows, columns, weights);
      of_temperature.add_up(temperature_factor);
      of_bias.add_up(1.0);
    });
  }

 private:
  // Letting the GIL go for a few microseconds costs more than others gain.
  template <class Work>
  void without_gil(Work work) const {
    if (contrast_.scores.rows * contrast_.scores.columns < kScoresWithGil) return work();
    const py::gil_scoped_release released;
    work();
  }

  const mmcl::Target& target_;
  std::vector<std::int64_t> positive_, labels_, key_labels_;
  mmcl::Contrast contrast_{};
  std::vector<float> statistics_, products_, chances_;
};

}  // namespace

void bind_contrast(py::module_& m) {
  using py::arg;
  py::class_<DenseContrast>(
      m, "DenseContrast",
      "A contrast with stored scores; see csrc/core/contrast.h. Arrays are contiguous and given\n"
      "by address, 0 for none; who calls keeps them alive. `sizes` is (N, M, K, D). Writes row\n"
      "losses [N], or with a weight one number: that times their sum.")
      .def(
          py::init<const Sizes&, Address, Address, const std::optional<double>&, const std::string&,
                   double, double, double, Address, Address, Address, Address, Address, Address,
                   Address, Address, std::size_t, bool, bool, bool, bool, const std::string&>(),
          arg("sizes"), arg("scores"), arg("losses"), arg("weight").none(true), arg("form"),
          arg("inverse_temperature"), arg("bias"), arg("smoothing"), arg("hard"),
          arg("hard_counts"), arg("positive"), arg("query"), arg("positive_key"), arg("labels"),
          arg("key_labels"), arg("excluded"), arg("extra"), arg("supervised"), arg("exclude_self"),
          arg("symmetric"), arg("same_rows"), arg("target") = "auto")
      .def("weights", &DenseContrast::weights,
           "Write dL/d<q, k> of sum_i upstream_i loss_i, and dL/dT and dL/db: row by row, or\n"
           "without `upstream_rows`, where every row has the weight `upstream`, their sums, that "
           "of\n"
           "dL/dT times `temperature_factor`.",
           arg("upstream"), arg("upstream_rows"), arg("rows"), arg("columns"), arg("scores"),
           arg("hard"), arg("positive"), arg("temperature"), arg("temperature_factor"),
           arg("bias"));
  m.def(
      "unit_rows",
      [](Address x, Address unit, Address norm, std::size_t n, std::size_t d,
         const std::string& target) {
        mmcl::unit_rows(mmcl::find_target(target), constant(x, n, d), matrix(unit, n, d),
                        at<float>(norm));
      },
      "Rows [n, d] over their norms, which are written; see csrc/core/rows.h.", arg("x"),
      arg("unit"), arg("norm"), arg("n"), arg("d"), arg("target") = "auto");
  m.def(
      "unit_rows_gradient",
      [](Address unit, Address norm, Address gradient, std::size_t n, std::size_t d,
         const std::string& target) {
        mmcl::unit_rows_gradient(mmcl::find_target(target), constant(unit, n, d),
                                 at<const float>(norm), matrix(gradient, n, d));
      },
      "In place, from the gradient in unit rows to that in the rows.", arg("unit"), arg("norm"),
      arg("gradient"), arg("n"), arg("d"), arg("target") = "auto");
}

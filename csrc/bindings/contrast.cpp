// Python surface of csrc/core/contrast.h: checks and holds buffers, releases the GIL.
#include "../core/contrast.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "contrast.h"
#include "float_arrays.h"

namespace py = pybind11;

namespace {

using mmcl::bindings::FloatMatrix;
using mmcl::bindings::FloatVector;
using Buffer = std::optional<py::buffer>;

struct IndexVector {
  py::buffer_info info;
  IndexVector(const py::buffer& buffer, const char* name, py::ssize_t size)
      : info(buffer.request()) {
    if (!info.item_type_is_equivalent_to<std::int64_t>() || info.ndim != 1 ||
        info.shape[0] != size || (size > 1 && info.strides[0] != info.itemsize)) {
      throw py::value_error(std::string(name) + ": expected " + std::to_string(size) +
                            " contiguous int64 values, got " + mmcl::bindings::shape_of(info));
    }
  }
  const std::int64_t* data() const { return static_cast<const std::int64_t*>(info.ptr); }
};

template <class Held, class... Arguments>
auto hold(std::optional<Held>& held, const Buffer& buffer, Arguments... arguments) {
  return buffer ? held.emplace(*buffer, arguments...).data() : nullptr;
}

// A result for each row, or their sum in an output of one value.
class PerRow {
 public:
  PerRow(const Buffer& buffer, const char* name, py::ssize_t n) {
    if (!buffer) return;
    info_ = buffer->request(true);
    const bool sum = info_.ndim == 0;
    if (!info_.item_type_is_equivalent_to<float>() ||
        !(sum || (info_.ndim == 1 && info_.shape[0] == n &&
                  (n < 2 || info_.strides[0] == info_.itemsize)))) {
      throw py::value_error(std::string(name) + ": expected one float32, or as many as rows, got " +
                            mmcl::bindings::shape_of(info_));
    }
    if (sum) rows_.resize(static_cast<std::size_t>(n));
    given_ = true;
    sum_ = sum;
  }
  float* rows() {
    if (!given_) return nullptr;
    return sum_ ? rows_.data() : static_cast<float*>(info_.ptr);
  }
  void add_up() const {
    if (!sum_) return;
    *static_cast<float*>(info_.ptr) =
        static_cast<float>(std::accumulate(rows_.begin(), rows_.end(), 0.0));
  }

 private:
  py::buffer_info info_;
  std::vector<float> rows_;
  bool given_ = false, sum_ = false;
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
  DenseContrast(const py::buffer& scores, const py::buffer& losses,
                const std::optional<double>& weight, const std::string& form,
                double inverse_temperature, double bias, double smoothing, const Buffer& hard,
                const Buffer& hard_counts, const Buffer& positive, const Buffer& positive_products,
                const Buffer& labels, const Buffer& key_labels, std::size_t extra, bool supervised,
                bool exclude_self, bool symmetric, bool same_rows, const std::string& target)
      : target_(mmcl::find_target(target)), scores_(scores, "scores", true) {
    const py::ssize_t n = scores_.info.shape[0], m = scores_.info.shape[1];
    if (extra > static_cast<std::size_t>(m)) {
      throw py::value_error("extra: expected at most " + std::to_string(m) + ", got " +
                            std::to_string(extra));
    }
    if ((symmetric || same_rows) && n != m) {
      throw py::value_error("scores: expected as many rows as columns, got " +
                            mmcl::bindings::shape_of(scores_.info));
    }
    if (supervised + positive.has_value() + positive_products.has_value() > 1) {
      throw py::value_error("positive, positive_products, supervised: expected at most one");
    }
    if (labels.has_value() != key_labels.has_value() || (supervised && !labels)) {
      throw py::value_error("labels, key_labels: expected both or neither, both if supervised");
    }
    const auto labelled = m - static_cast<py::ssize_t>(extra);
    contrast_.form = form_of(form);
    contrast_.scores = scores_.matrix<float>();
    contrast_.hard = {nullptr, static_cast<std::size_t>(n), 0, 0};
    if (hard) {
      contrast_.hard = hard_.emplace(*hard, "hard", true).matrix<float>();
      if (hard_->info.shape[0] != n) throw py::value_error("hard: expected the rows of scores");
    }
    if (hard_counts && !hard) throw py::value_error("hard_counts: expected hard beside it");
    contrast_.hard_counts = hold(hard_counts_, hard_counts, "hard_counts", n);
    contrast_.positive = hold(positive_, positive, "positive", n);
    contrast_.positive_products =
        hold(positive_products_, positive_products, "positive_products", n, false);
    contrast_.labels = hold(labels_, labels, "labels", n);
    contrast_.key_labels = hold(key_labels_, key_labels, "key_labels", labelled);
    if (!supervised && !positive && !positive_products) {
      if (n > m) throw py::value_error("scores: expected at least as many columns as rows");
      diagonal_.resize(static_cast<std::size_t>(n));
      std::iota(diagonal_.begin(), diagonal_.end(), std::int64_t{0});
      contrast_.positive = diagonal_.data();
    } else if (positive) {
      const bool inside = std::all_of(contrast_.positive, contrast_.positive + n,
                                      [m](std::int64_t at) { return at >= 0 && at < m; });
      if (!inside) throw py::value_error("positive: expected columns of scores");
    }
    contrast_.extra = extra;
    contrast_.supervised = supervised;
    contrast_.exclude_self = exclude_self;
    contrast_.symmetric = symmetric;
    contrast_.same_rows = same_rows;
    contrast_.inverse_temperature = inverse_temperature;
    contrast_.bias = bias;
    contrast_.smoothing = smoothing;
    statistics_.resize(static_cast<std::size_t>(n) * mmcl::kStatistics * (symmetric ? 2 : 1));
    if (weight && !(n > 0)) throw py::value_error("scores: expected at least one row");
    const py::buffer_info out = losses.request(true);
    if (!out.item_type_is_equivalent_to<float>() || out.size != (weight ? 1 : n) ||
        (out.size > 1 && (out.ndim != 1 || out.strides[0] != out.itemsize))) {
      throw py::value_error("losses: expected contiguous float32 values, one or as many as rows");
    }
    auto* const written = static_cast<float*>(out.ptr);
    std::vector<float> rows(weight ? static_cast<std::size_t>(n) : 0);
    const py::gil_scoped_release released;
    mmcl::contrast_losses(target_, contrast_, statistics_.data(), weight ? rows.data() : written);
    if (weight) {
      *written = static_cast<float>(*weight * std::accumulate(rows.begin(), rows.end(), 0.0));
    }
  }

  void weights(const std::variant<double, py::buffer>& upstream, bool rows, bool columns,
               const py::buffer& scores, const Buffer& hard, const Buffer& positive,
               const Buffer& temperature, const Buffer& bias) const {
    const py::ssize_t n = scores_.info.shape[0];
    std::vector<float> even;
    std::optional<FloatVector> given;
    if (const double* value = std::get_if<double>(&upstream)) {
      even.assign(static_cast<std::size_t>(n), static_cast<float>(*value));
    } else {
      given.emplace(std::get<py::buffer>(upstream), "upstream", n, false);
    }
    const FloatMatrix out(scores, "scores", true);
    std::optional<FloatMatrix> of_hard;
    std::optional<FloatVector> of_positive;
    if (out.info.shape != scores_.info.shape || hard.has_value() != hard_.has_value() ||
        positive.has_value() != positive_products_.has_value()) {
      throw py::value_error("weights: expected outputs in the shapes of the inputs");
    }
    mmcl::ContrastWeights weights{out.matrix<float>(), contrast_.hard, nullptr, nullptr, nullptr};
    if (hard) {
      weights.hard = of_hard.emplace(*hard, "hard", true).matrix<float>();
      if (of_hard->info.shape != hard_->info.shape) {
        throw py::value_error("hard: expected the shape of the hard scores");
      }
    }
    weights.positive = hold(of_positive, positive, "positive", n, true);
    PerRow of_temperature(temperature, "temperature", n), of_bias(bias, "bias", n);
    weights.temperature = of_temperature.rows();
    weights.bias = of_bias.rows();
    const py::gil_scoped_release released;
    mmcl::contrast_weights(target_, contrast_, statistics_.data(),
                           given ? given->data() : even.data(), rows, columns, weights);
    of_temperature.add_up();
    of_bias.add_up();
  }

 private:
  const mmcl::Target& target_;
  FloatMatrix scores_;
  std::optional<FloatMatrix> hard_;
  std::optional<FloatVector> positive_products_;
  std::vector<std::int64_t> diagonal_;
  std::optional<IndexVector> hard_counts_, positive_, labels_, key_labels_;
  mmcl::Contrast contrast_;
  std::vector<float> statistics_;
};

}  // namespace

void bind_contrast(py::module_& m) {
  using py::arg;
  py::class_<DenseContrast>(
      m, "DenseContrast",
      "A contrast with stored scores; see csrc/core/contrast.h. Writes row losses [N],\n"
      "or with a weight [1]: that times their sum.")
      .def(py::init<const py::buffer&, const py::buffer&, const std::optional<double>&,
                    const std::string&, double, double, double, const Buffer&, const Buffer&,
                    const Buffer&, const Buffer&, const Buffer&, const Buffer&, std::size_t, bool,
                    bool, bool, bool, const std::string&>(),
           arg("scores"), arg("losses"), arg("weight").none(true), arg("form"),
           arg("inverse_temperature"), arg("bias"), arg("smoothing"), arg("hard").none(true),
           arg("hard_counts").none(true), arg("positive").none(true),
           arg("positive_products").none(true), arg("labels").none(true),
           arg("key_labels").none(true), arg("extra"), arg("supervised"), arg("exclude_self"),
           arg("symmetric"), arg("same_rows"), arg("target") = "auto")
      .def("weights", &DenseContrast::weights,
           "Write dL/d<q, k> of sum_i upstream_i loss_i (one number: of all rows), and by row or "
           "in all "
           "dL/dT and dL/db.",
           arg("upstream"), arg("rows"), arg("columns"), arg("scores"), arg("hard").none(true),
           arg("positive").none(true), arg("temperature").none(true), arg("bias").none(true));
}

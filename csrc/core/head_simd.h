// A logistic head's fit and its accuracy, over a wrapper `D`.
// mmcl_fast/training/linear_probe.py explains the method.
#pragma once

#include <cmath>
#include <cstring>

#include "head_algebra.h"

namespace mmcl {
namespace doubles {

constexpr double kTiny = 0x1p-1022, kEpsilon = 0x1p-52;
constexpr int kMostHalvings = 60;
constexpr double kArmijo = 1e-4;
// Rounding of the objective: without this slack the last Newton steps would be refused at random.
constexpr double kRounding = 1e-13;

// Fills rows, columns and mean with the centred features; false if one is not finite.
template <class D, class T>
static bool load_features(const HeadSettings& s, const T* from, const HeadWorkspace& space) {
  auto zero = D::broadcast(0.0);
  for (std::size_t i = 0; i < s.n; ++i) {
    double* const row = space.rows + i * space.features;
    for (std::size_t j = 0; j < s.p; j += kDoubles) {
      const auto value = D::load_first(from + i * s.p + j, s.p - j);
      zero = D::fma(value, D::broadcast(0.0), zero);
      D::store(row + j, value);
    }
  }
  if (!(sum<D>(zero) == 0.0)) return false;
  const double count = static_cast<double>(s.n);
  for (std::size_t i = 0; i < s.n; ++i) space.scratch[i] = 1.0;
  combine<D, 1>(space.rows, space.features, s.n, {space.scratch}, {space.mean});
  for (std::size_t j = 0; j < s.p; j += kDoubles) {
    const auto mean = D::divide(D::load(space.mean + j), D::broadcast(count));
    D::store(space.mean + j, mean);
    for (std::size_t i = 0; i < s.n; ++i) {
      double* const at = space.rows + i * space.features + j;
      D::store(at, D::subtract(D::load(at), mean));
    }
  }
  for (std::size_t j = 0; j < s.p; ++j) {
    double* const column = space.columns + j * space.samples;
    for (std::size_t i = 0; i < s.n; ++i) column[i] = space.rows[i * space.features + j];
    for (std::size_t i = s.n; i < space.samples; ++i) column[i] = 0.0;
  }
  return true;
}

// Sums over samples at the current scores.
struct HeadState {
  double loss, residuals, residual_magnitude, curvature;  // residual_magnitude: sum of |residual|
};

template <class D>
class Newton {
  using Float = typename D::Float;

 public:
  Newton(const HeadSettings& settings, const HeadWorkspace& space, const float* labels)
      : s_(settings), w_(space), count_(static_cast<double>(settings.n)) {
    double plus = 0;
    for (std::size_t i = 0; i < w_.samples; ++i) {
      w_.y[i] = i < s_.n ? double{labels[i]} : 0.0;
      w_.valid[i] = i < s_.n ? 1.0 : 0.0;
      plus += w_.y[i] > 0 ? 1.0 : 0.0;
    }
    bias_ = log_ratio(plus, count_ - plus);
    for (std::size_t i = 0; i < in_units(w_.unknowns); ++i) w_.coef[i] = 0.0;
    if (w_.primal) {
      auto most = D::broadcast(0.0);
      for (std::size_t i = 0; i < s_.n * w_.features; i += kDoubles) {
        most = D::maximum(absolute<D>(D::load(w_.rows + i)), most);
      }
      largest_ = largest<D>(most);
      return;
    }
    upper_gram<D>(w_.columns, w_.samples, s_.p, s_.n, w_.matrix, w_.samples);
    for (std::size_t i = 0; i < s_.n; ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        w_.matrix[i * w_.samples + j] = w_.matrix[j * w_.samples + i];
      }
    }
  }

  // From w = 0 and the best constant score. Returns whether the gradient met the tolerance.
  bool run(std::int64_t* steps) {
    bool progressed = true;
    for (std::size_t step = 0;; ++step) {
      images(w_.coef, w_.score);
      const double norm_square = metric(w_.coef, w_.score);
      shift(w_.score, bias_);
      const HeadState now = derivatives();
      project();
      const bool met = is_stationary(now);
      if (met || !progressed || step == s_.most_steps) {
        *steps = static_cast<std::int64_t>(step);
        return met;
      }
      const double bias_step = w_.primal ? primal_direction(now) : dual_direction();
      progressed = search(now, norm_square, bias_step);
    }
  }

  void write_head(double* weight, double* bias) const {
    double* const solution = w_.primal ? w_.coef : w_.step;
    if (!w_.primal) combine<D, 1>(w_.rows, w_.features, s_.n, {w_.coef}, {solution});
    *bias = bias_ - dot<D>(solution, w_.mean, w_.features);
    std::memcpy(weight, solution, s_.p * sizeof(double));
  }

 private:
  // The scores of a vector of unknowns.
  void images(const double* of, double* to) const {
    if (w_.primal) {
      combine<D, 1>(w_.columns, w_.samples, s_.p, {of}, {to});
    } else {
      combine<D, 1>(w_.matrix, w_.samples, s_.n, {of}, {to});
    }
  }

  // <w, w'> of the weights that belong to a vector of unknowns and to one with this image.
  double metric(const double* vector, const double* image) const {
    return dot<D>(vector, w_.primal ? vector : image, in_units(w_.unknowns));
  }

  void shift(double* to, double by) const {
    for (std::size_t i = 0; i < w_.samples; i += kDoubles) {
      D::store(to + i, D::add(D::load(to + i), D::broadcast(by)));
    }
  }

  static MMCL_INLINE Float loss_of(Float margin, Float small) {
    return D::subtract(log1p<D>(small), D::minimum(margin, D::broadcast(0.0)));
  }

  // Residuals -dloss/dscore and the second derivative of each sample's loss.
  HeadState derivatives() const {
    const Float one = D::broadcast(1.0);
    Float loss = D::broadcast(0.0), residuals = loss, residual_magnitude = loss, curvature = loss;
    for (std::size_t i = 0; i < w_.samples; i += kDoubles) {
      const Float y = D::load(w_.y + i), valid = D::load(w_.valid + i);
      const Float margin = D::mul(y, D::load(w_.score + i));
      const Float small = exp<D>(D::subtract(D::broadcast(0.0), absolute<D>(margin)));
      const Float share = D::divide(one, D::add(one, small));
      const Float numerator = D::select(D::less(D::broadcast(0.0), margin), small, one);
      const Float one_minus_p = D::mul(D::mul(numerator, share), valid);  // p = P(y_i | f_i)
      const Float second_derivative = D::mul(D::mul(D::mul(small, share), share), valid);
      D::store(w_.residuals + i, D::mul(y, one_minus_p));
      D::store(w_.curvature + i, second_derivative);
      loss = D::fma(loss_of(margin, small), valid, loss);
      residuals = D::fma(y, one_minus_p, residuals);
      residual_magnitude = D::add(residual_magnitude, one_minus_p);
      curvature = D::add(curvature, second_derivative);
    }
    return {sum<D>(loss), sum<D>(residuals), sum<D>(residual_magnitude), sum<D>(curvature)};
  }

  // Primal: F^T applied to residuals and curvature. Dual: rho, where the gradient in w is -l2 F^T
  // rho.
  void project() const {
    if (w_.primal) {
      combine<D, 2>(w_.rows, w_.features, s_.n, {w_.residuals, w_.curvature},
                    {w_.projected, w_.second});
      return;
    }
    const Float scale = D::broadcast(count_ * s_.l2);
    for (std::size_t i = 0; i < w_.samples; i += kDoubles) {
      const Float goal = D::divide(D::load(w_.residuals + i), scale);
      D::store(w_.projected + i, D::subtract(goal, D::load(w_.coef + i)));
    }
  }

  bool is_stationary(const HeadState& now) const {
    if (!((now.residuals < 0 ? -now.residuals : now.residuals) <=
          s_.tolerance * now.residual_magnitude))
      return false;
    Float most = D::broadcast(0.0), all = most;
    for (std::size_t i = 0; i < in_units(w_.unknowns); i += kDoubles) {
      Float size = absolute<D>(D::load(w_.projected + i));
      if (w_.primal) {
        const Float projected = D::divide(D::load(w_.projected + i), D::broadcast(count_));
        const Float decay = D::mul(D::broadcast(s_.l2), D::load(w_.coef + i));
        size = absolute<D>(D::subtract(decay, projected));
      }
      most = D::maximum(size, most);
      all = D::add(all, size);  // keeps a not-a-number, which the maximum may pass over
    }
    const double all_sum = sum<D>(all);
    const double mean = now.residual_magnitude / count_;
    if (w_.primal) {
      return is_finite(all_sum) && largest<D>(most) <= s_.tolerance * (largest_ * mean);
    }
    // max_j |l2 (F^T rho)_j| <= l2 n max|F| mean|rho|, so this implies the primal criterion.
    return all_sum / count_ <= s_.tolerance * (mean / (count_ * s_.l2));
  }

  // Raises the diagonal of the system by `least`, and by a bound of its rounding, which keeps it
  // definite.
  void raise_diagonal(double least) const {
    double most = 0;
    const std::size_t step = w_.width + 1;
    for (std::size_t k = 0; k < w_.unknowns; ++k) {
      const double value = w_.system[k * step];
      most = value > most || value != value ? value : most;
    }
    const double rounding = 4.0 * static_cast<double>(w_.unknowns) * kEpsilon * most;
    for (std::size_t k = 0; k < w_.unknowns; ++k) w_.system[k * step] += least + rounding;
  }

  void set_right_sides(const double* first, const double* second) const {
    for (std::size_t k = 0; k < w_.unknowns; ++k) {
      double* const row = w_.system + k * w_.width;
      for (std::size_t i = w_.unknowns; i < w_.width; ++i) row[i] = 0.0;
      row[w_.unknowns] = first[k];
      if (second != nullptr) row[w_.unknowns + 1] = second[k];
    }
  }

  void solve_system(std::size_t side, double* to) const {
    solve<D>(w_.system, w_.width, w_.unknowns, w_.inverse, w_.unknowns + side, to);
  }

  // The Newton direction in w, to `step`; returns that in b. The intercept is eliminated by
  // centring with the weights.
  double primal_direction(const HeadState& now) const {
    const double curvature_sum = now.curvature > kTiny ? now.curvature : kTiny;
    const double lift = now.residuals / curvature_sum;
    const Float count = D::broadcast(count_);
    for (std::size_t i = 0; i < w_.samples; i += kDoubles) {
      D::store(w_.root + i, D::sqrt(D::divide(D::load(w_.curvature + i), count)));
    }
    for (std::size_t j = 0; j < w_.features; j += kDoubles) {
      const Float second = D::load(w_.second + j);
      const Float mean = D::divide(second, D::broadcast(curvature_sum));
      const Float lifted =
          D::subtract(D::load(w_.projected + j), D::mul(D::broadcast(lift), second));
      const Float decay = D::mul(D::broadcast(s_.l2), D::load(w_.coef + j));
      D::store(w_.second + j, mean);
      D::store(w_.scratch + j, D::subtract(D::divide(lifted, count), decay));
    }
    for (std::size_t i = 0; i < s_.n; ++i) {
      const Float root = D::broadcast(w_.root[i]);
      const std::size_t row = i * w_.features;
      for (std::size_t j = 0; j < w_.features; j += kDoubles) {
        const Float centred = D::subtract(D::load(w_.rows + row + j), D::load(w_.second + j));
        D::store(w_.matrix + row + j, D::mul(centred, root));
      }
    }
    upper_gram<D>(w_.matrix, w_.features, s_.n, s_.p, w_.system, w_.width);
    raise_diagonal(s_.l2);
    set_right_sides(w_.scratch, nullptr);
    cholesky<D>(w_.system, w_.width, w_.unknowns, w_.inverse);
    solve_system(0, w_.step);
    return lift - dot<D>(w_.second, w_.step, w_.features);
  }

  // The Newton direction in a and b. Newton's system (I + W K) da + W 1 db = rho is solved through
  // I + W^(1/2) K W^(1/2); after a whole step a sums to 0.
  double dual_direction() const {
    const Float scale = D::broadcast(count_ * s_.l2);
    for (std::size_t i = 0; i < w_.samples; i += kDoubles) {
      D::store(w_.root + i, D::sqrt(D::divide(D::load(w_.curvature + i), scale)));
    }
    for (std::size_t k = 0; k < s_.n; ++k) {
      const Float root = D::broadcast(w_.root[k]);
      for (std::size_t i = k / kDoubles * kDoubles; i < w_.samples; i += kDoubles) {
        const Float kernel = D::load(w_.matrix + k * w_.samples + i);
        D::store(w_.system + k * w_.width + i, D::mul(D::mul(kernel, root), D::load(w_.root + i)));
      }
    }
    raise_diagonal(1.0);
    images(w_.projected, w_.second);
    for (std::size_t i = 0; i < w_.samples; i += kDoubles) {
      D::store(w_.scratch + i, D::mul(D::load(w_.root + i), D::load(w_.second + i)));
    }
    set_right_sides(w_.scratch, w_.root);
    cholesky<D>(w_.system, w_.width, w_.unknowns, w_.inverse);
    solve_system(0, w_.scratch);
    solve_system(1, w_.second);
    for (std::size_t i = 0; i < w_.samples; i += kDoubles) {
      const Float root = D::load(w_.root + i);
      const Float back = D::mul(root, D::load(w_.scratch + i));
      D::store(w_.scratch + i, D::subtract(D::load(w_.projected + i), back));
      D::store(w_.second + i, D::mul(root, D::load(w_.second + i)));
    }
    const double slope_sum = sum_of<D>(w_.second, w_.samples);
    const double coefficient_sum =
        sum_of<D>(w_.coef, w_.samples) + sum_of<D>(w_.scratch, w_.samples);
    const double bias_step = coefficient_sum / (slope_sum > kTiny ? slope_sum : kTiny);
    for (std::size_t i = 0; i < w_.samples; i += kDoubles) {
      const Float part = D::mul(D::broadcast(bias_step), D::load(w_.second + i));
      D::store(w_.step + i, D::subtract(D::load(w_.scratch + i), part));
    }
    return bias_step;
  }

  double loss_at(double size) const {
    Float loss = D::broadcast(0.0);
    for (std::size_t i = 0; i < w_.samples; i += kDoubles) {
      const Float at = D::fma(D::broadcast(size), D::load(w_.change + i), D::load(w_.score + i));
      const Float margin = D::mul(D::load(w_.y + i), at);
      const Float small = exp<D>(D::subtract(D::broadcast(0.0), absolute<D>(margin)));
      loss = D::fma(loss_of(margin, small), D::load(w_.valid + i), loss);
    }
    return sum<D>(loss);
  }

  // Halves the step until the objective decreases enough, and takes it; false if it never does:
  // nothing changes then.
  bool search(const HeadState& now, double norm_square, double bias_step) {
    images(w_.step, w_.change);
    const double step_square = metric(w_.step, w_.change);
    // <w, dw>: in the dual form <a, K da>.
    const double* const other = w_.primal ? w_.step : w_.change;
    const double mixed = dot<D>(w_.coef, other, in_units(w_.unknowns));
    shift(w_.change, bias_step);
    const double slope = s_.l2 * mixed - dot<D>(w_.residuals, w_.change, w_.samples) / count_;
    const double start = now.loss / count_ + 0.5 * s_.l2 * norm_square;
    const double limit = start + kRounding * (start < 0 ? -start : start);
    double size = 1.0;
    for (int halvings = 0;; ++halvings, size *= 0.5) {
      const double penalty = norm_square + size * (2.0 * mixed + size * step_square);
      const double objective = loss_at(size) / count_ + 0.5 * s_.l2 * penalty;
      if (objective <= limit + kArmijo * size * slope) break;
      if (halvings == kMostHalvings || !is_finite(slope)) return false;
    }
    for (std::size_t i = 0; i < in_units(w_.unknowns); i += kDoubles) {
      const Float next = D::fma(D::broadcast(size), D::load(w_.step + i), D::load(w_.coef + i));
      D::store(w_.coef + i, next);
    }
    bias_ += size * bias_step;
    return true;
  }

  const HeadSettings& s_;
  const HeadWorkspace& w_;
  const double count_;
  double bias_ = 0, largest_ = 0;
};

template <class D, class T>
static void fit_head(const HeadSettings& settings, const HeadFit<T>& fit, double* memory) {
  HeadWorkspace space(settings, memory);
  if (!load_features<D>(settings, fit.features, space)) {
    for (std::size_t j = 0; j < settings.p; ++j) fit.weight[j] = NAN;
    *fit.bias = NAN;
    *fit.converged = false;
    *fit.steps = 0;
    return;
  }
  Newton<D> newton(settings, space, fit.labels);
  *fit.converged = newton.run(fit.steps);
  newton.write_head(fit.weight, fit.bias);
}

template <class D, class T>
static void score_head(std::size_t n, std::size_t p, const HeadScore<T>& work) {
  std::size_t right = 0;
  auto zero = D::broadcast(0.0);
  for (std::size_t i = 0; i < n; ++i) {
    auto partial = D::broadcast(0.0);
    for (std::size_t j = 0; j < p; j += kDoubles) {
      const auto feature = D::load_first(work.features + i * p + j, p - j);
      zero = D::fma(feature, D::broadcast(0.0), zero);
      partial = D::fma(feature, D::load_first(work.weight + j, p - j), partial);
    }
    const double score = sum<D>(partial) + work.bias;
    zero = D::fma(D::broadcast(score), D::broadcast(0.0), zero);
    right += (score > 0) == (work.labels[i] > 0) ? 1 : 0;
  }
  const bool usable = sum<D>(zero) == 0.0;
  *work.share = usable ? static_cast<double>(right) / static_cast<double>(n) : NAN;
}

template <class D>
constexpr HeadKernels kHead{fit_head<D, float>, fit_head<D, double>, score_head<D, float>,
                            score_head<D, double>};

}  // namespace doubles
}  // namespace mmcl

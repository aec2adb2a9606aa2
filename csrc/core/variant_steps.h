// From pre-activations to features, and from gradients to pre-activations, over a wrapper `L`.
#pragma once

#include "variant_scores.h"

namespace mmcl {
namespace lanes {

// Fills features, view_features and the lists of changing columns from z; returns max <w_r, xi_i>
// per lane.
template <class L>
static typename L::Float activate_samples(const VariantSettings& s, const VariantWorkspace& w,
                                          const VariantModalityWorkspace& modality) {
  const auto lowest = L::broadcast(-__builtin_inff());
  auto noise = lowest;
  const bool view_columns = w.sizes.views && s.key_gradients;
  for (std::size_t r = 0; r < s.m; ++r) {
    const float* const row = modality.z + r * w.width;
    std::int32_t* const active = modality.active + r * w.change_stride;
    std::size_t count = 0;
    for (std::size_t i = 0; i < s.n; i += kUnit) {
      const auto value = L::load(row + i);
      const auto valid = L::first(s.n - i);
      const auto on = L::both(valid, L::less(L::broadcast(0.0f), value));
      count += L::append(on, static_cast<std::int32_t>(i), active + count);
      noise = L::maximum(L::select(valid, value, lowest), noise);
      L::store(modality.features + r * w.samples + i, L::keep(valid, activation<L>(value, s.q)));
    }
    modality.active_samples[r] = static_cast<std::int32_t>(count);
    for (std::size_t a = 0; a < s.axes; ++a) {
      if (w.present[a] != 0) active[count++] = static_cast<std::int32_t>(s.n + a);
    }
    const std::size_t views = s.n + s.axes;
    for (std::size_t i = 0; w.sizes.views && i < s.n; i += kUnit) {
      const auto value = L::load(row + views + i);
      const auto valid = L::first(s.n - i);
      L::store(modality.view_features + r * w.samples + i,
               L::keep(valid, activation<L>(value, s.q)));
      if (!view_columns) continue;
      const auto on = L::both(valid, L::less(L::broadcast(0.0f), value));
      count += L::append(on, static_cast<std::int32_t>(views + i), active + count);
    }
    modality.active_count[r] = static_cast<std::int32_t>(count);
  }
  return noise;
}

// max |<w_r, signal>| over the classes' signals.
template <class L>
static float largest_signal(const VariantSettings& s, const VariantWorkspace& w,
                            const VariantModalityWorkspace& modality) {
  auto most = L::broadcast(0.0f);
  for (std::size_t a = 0; a < s.class_axes; ++a) {
    for (std::size_t r = 0; r < s.m; r += kUnit) {
      const auto z = L::load(modality.signal + a * w.neurons + r);
      most = L::maximum(L::maximum(z, L::subtract(L::broadcast(0.0f), z)), most);
    }
  }
  return largest<L>(most);
}

// 1 / max(|H|, 1e-12) of samples with these noise features and codes; its square is 0 where the
// maximum is 1e-12, whose derivative is 0.
template <class L>
static void invert_norms(const VariantSettings& s, const VariantWorkspace& w,
                         const VariantModalityWorkspace& modality, const float* features,
                         const std::int32_t* code, float* inverse, float* inverse_square) {
  for (std::size_t c = 0; c < w.codes; ++c) {
    auto sum = L::broadcast(0.0f);
    for (std::size_t p = 0; p < s.patches; ++p) {
      const float* const row = modality.code_features + (p * w.codes + c) * w.neurons;
      for (std::size_t r = 0; r < s.m; r += kUnit) {
        const auto x = L::load(row + r);
        sum = L::fma(x, x, sum);
      }
    }
    modality.code_radial[c] = mmcl::sum<L>(sum);  // free until the gradient
  }
  for (std::size_t i = 0; i < s.n; ++i) w.gathered[i] = modality.code_radial[code[i]];
  for (std::size_t i = 0; i < s.n; i += kUnit) {
    auto sum = L::broadcast(0.0f);
    for (std::size_t r = 0; r < s.m; ++r) {
      const auto x = L::load(features + r * w.samples + i);
      sum = L::fma(x, x, sum);
    }
    const auto norm = L::sqrt(L::add(sum, L::load(w.gathered + i)));
    const auto smallest = L::broadcast(kSmallestNorm);
    const auto x = L::divide(L::broadcast(1.0f), L::maximum(smallest, norm));
    const auto valid = L::first(s.n - i);
    L::store(inverse + i, L::keep(valid, x));
    const auto moves = L::both(valid, L::less(smallest, norm));
    L::store(inverse_square + i, L::keep(moves, L::mul(x, x)));
  }
}

// C's columns of the samples: minus eta times the gradient, written or, if `add`, added to those of
// another pair of modalities. Weights of pairs are in exps; they are multiplied by key_weight if
// `weigh`. Those of a strip of samples serve all neurons while they are in the cache.
template <class L>
static void change_samples(const VariantSettings& s, const VariantWorkspace& w,
                           const VariantModalityWorkspace& own,
                           const VariantModalityWorkspace& other, const float* positive, bool weigh,
                           bool add) {
  const bool cosine = s.cosine;
  Units<L::change_units>::cover(0, padded(s.n) / kUnit, [&](auto units, std::size_t first) {
    for (std::size_t r = 0; r < s.m; ++r) {
      const std::size_t at = r * w.samples;
      const float* const z = own.z + r * w.width;
      float* const to = own.change + r * w.change_stride;
      typename L::Float sums[decltype(units)::value];
      for (auto& t : sums) t = L::broadcast(0.0f);
      add_rows<L, decltype(units)::value>(other.features + at, other.active + r * w.change_stride,
                                          static_cast<std::size_t>(other.active_samples[r]),
                                          {own.exps + first * kUnit, w.samples}, sums);
      MMCL_UNROLL(8)
      for (int u = 0; u < decltype(units)::value; ++u) {
        const std::size_t i = (first + u) * kUnit;
        auto g = L::mul(L::load(own.positive_weight + i), L::load(positive + at + i));
        g = L::subtract(g, weigh ? L::mul(sums[u], L::load(own.key_weight + i)) : sums[u]);
        if (cosine) {
          g = L::fma(L::load(own.radial + i), L::load(own.features + at + i), g);
        }
        g = times_slope<L>(g, L::load(z + i), s.q);
        if (add) g = L::add(g, L::load_first(to + i, s.n - i));
        L::store_first(to + i, g, s.n - i);
      }
    }
  });
}

// C's columns of the views.
template <class L>
static void change_views(const VariantSettings& s, const VariantWorkspace& w,
                         const VariantModalityWorkspace& own) {
  const std::size_t views = s.n + s.axes;
  for (std::size_t r = 0; r < s.m; ++r) {
    const std::size_t at = r * w.samples;
    for (std::size_t i = 0; i < s.n; i += kUnit) {
      auto g = L::mul(L::load(own.positive_weight + i), L::load(own.features + at + i));
      if (s.cosine) {
        g = L::fma(L::load(own.view_radial + i), L::load(own.view_features + at + i), g);
      }
      const auto z = L::load(own.z + r * w.width + views + i);
      L::store_first(own.change + r * w.change_stride + views + i, times_slope<L>(g, z, s.q),
                     s.n - i);
    }
  }
}

// A <- A + C, of samples and views; change_signals adds the rest.
template <class L>
static void add_change(const VariantSettings& s, const VariantWorkspace& w,
                       const VariantModalityWorkspace& modality, float* coefficients) {
  const std::size_t views = s.n + s.axes;
  for (std::size_t r = 0; r < s.m; ++r) {
    const float* const change = modality.change + r * w.change_stride;
    float* const row = coefficients + r * w.sizes.columns;
    for (std::size_t first = 0; first < w.sizes.columns; first += views) {
      for (std::size_t i = 0; i < s.n; i += kUnit) {
        const std::size_t left = s.n - i;
        const auto sum =
            L::add(L::load_first(row + first + i, left), L::load_first(change + first + i, left));
        L::store_first(row + first + i, sum, left);
      }
    }
  }
}

// Z <- Z + C K, block of columns by block. C K is summed on its own: Z is rounded once in an epoch.
template <class L>
static void update_z(const VariantSettings& s, const VariantWorkspace& w,
                     const VariantModalityWorkspace& modality) {
  const std::size_t units = padded(w.sizes.vectors) / kUnit;
  const float* block = modality.blocks;
  for (std::size_t first = 0; first < units; first += kBlockUnits) {
    const std::size_t here = units - first < kBlockUnits ? units - first : kBlockUnits;
    for (std::size_t r = 0; r < s.m; ++r) {
      float* const row = modality.z + r * w.width + first * kUnit;
      Units<L::update_units>::cover(0, here, [&](auto part, std::size_t unit) {
        typename L::Float sums[decltype(part)::value];
        MMCL_UNROLL(8)
        for (int u = 0; u < decltype(part)::value; ++u) sums[u] = L::broadcast(0.0f);
        add_rows<L, decltype(part)::value>(modality.change + r * w.change_stride,
                                           modality.active + r * w.change_stride,
                                           static_cast<std::size_t>(modality.active_count[r]),
                                           {block + unit * kUnit, here * kUnit}, sums);
        MMCL_UNROLL(8)
        for (int u = 0; u < decltype(part)::value; ++u) {
          float* const at = row + (unit + u) * kUnit;
          L::store(at, L::add(L::load(at), sums[u]));
        }
      });
    }
    block += w.sizes.columns * here * kUnit;
  }
}

// The same where all vectors are orthogonal, except a view and its noise patch; of partners that
// are `in_order` each is its own sample's.
template <class L>
static void update_orthogonal_z(const VariantSettings& s, const VariantWorkspace& w,
                                const VariantProducts& products, bool in_order,
                                const VariantModalityWorkspace& modality) {
  const std::size_t views = s.n + s.axes;
  const bool view_columns = w.sizes.columns > views;
  for (std::size_t r = 0; r < s.m; ++r) {
    float* const row = modality.z + r * w.width;
    const float* const change = modality.change + r * w.change_stride;
    if (view_columns) {
      for (std::size_t i = 0; i < s.n; ++i) {
        w.gathered[products.partner[i]] = products.with_view[i] * change[views + i];
      }
    }
    for (std::size_t i = 0; i < s.n; i += kUnit) {
      const std::size_t left = s.n - i;
      auto sum = L::mul(L::load_first(change + i, left), L::load_first(products.squares + i, left));
      if (view_columns) sum = L::add(sum, L::load(w.gathered + i));
      L::store_first(row + i, L::add(L::load(row + i), sum), left);
    }
    for (std::size_t a = 0; a < s.axes; ++a) {
      if (w.present[a] != 0) row[s.n + a] += change[s.n + a] * products.squares[s.n + a];
    }
    if (!w.sizes.views) continue;
    for (std::size_t i = 0; !in_order && i < s.n; ++i) w.gathered[i] = change[products.partner[i]];
    const float* const of_partner = in_order ? change : w.gathered;
    for (std::size_t i = 0; i < s.n; i += kUnit) {
      const std::size_t left = s.n - i;
      auto sum =
          L::mul(L::load_first(of_partner + i, left), L::load_first(products.with_view + i, left));
      if (view_columns) {
        const auto own = L::load_first(change + views + i, left);
        sum = L::fma(own, L::load_first(products.squares + views + i, left), sum);
      }
      L::store_first(row + views + i, L::add(L::load(row + views + i), sum), left);
    }
  }
}

}  // namespace lanes
}  // namespace mmcl

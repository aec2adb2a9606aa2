// Eight lanes of doubles of AVX-512 for logistic heads.
#if defined(__x86_64__)
#include <immintrin.h>

#include "head_simd.h"

namespace mmcl {
namespace {

struct Avx512Doubles {
  using Float = __m512d;
  using Mask = __mmask8;
  // Units of a tile whose sums stay in the 32 registers.
  static constexpr int combine_units = 14, gram_rows = 8, gram_units = 3, factor_units = 4;

  static MMCL_INLINE Float broadcast(double x) { return _mm512_set1_pd(x); }
  static MMCL_INLINE Float load(const double* from) { return _mm512_loadu_pd(from); }
  static MMCL_INLINE void store(double* to, Float a) { _mm512_storeu_pd(to, a); }
  static MMCL_INLINE Float load_first(const double* from, std::size_t lanes) {
    return _mm512_maskz_loadu_pd(first(lanes), from);
  }
  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes) {
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(first(lanes), from));
  }
  static MMCL_INLINE Float add(Float a, Float b) { return _mm512_add_pd(a, b); }
  static MMCL_INLINE Float subtract(Float a, Float b) { return _mm512_sub_pd(a, b); }
  static MMCL_INLINE Float mul(Float a, Float b) { return _mm512_mul_pd(a, b); }
  static MMCL_INLINE Float div(Float a, Float b) { return _mm512_div_pd(a, b); }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_pd(a, b, c); }
  static MMCL_INLINE Float root(Float a) { return _mm512_sqrt_pd(a); }
  static MMCL_INLINE double root(double a) {
    return _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(a)));
  }
  static MMCL_INLINE Float larger(Float a, Float b) { return _mm512_max_pd(a, b); }
  static MMCL_INLINE Float smaller(Float a, Float b) { return _mm512_min_pd(a, b); }
  static MMCL_INLINE Mask less(Float a, Float b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) {
    return _mm512_mask_blend_pd(m, b, a);
  }
  static MMCL_INLINE Float drop(Mask m, Float a) {
    return _mm512_maskz_mov_pd(static_cast<Mask>(~m), a);
  }
  static MMCL_INLINE Float two_to_the(Float shifted) {
    const __m512i exponent = _mm512_slli_epi64(_mm512_castpd_si512(shifted), 52);
    return _mm512_castsi512_pd(_mm512_add_epi64(exponent, _mm512_set1_epi64(1023ll << 52)));
  }

 private:
  static MMCL_INLINE Mask first(std::size_t lanes) {
    return static_cast<Mask>(lanes >= kDoubles ? 0xffu : (1u << lanes) - 1u);
  }
};

}  // namespace

const HeadKernels kAvx512Head = doubles::kHead<Avx512Doubles>;

}  // namespace mmcl
#endif

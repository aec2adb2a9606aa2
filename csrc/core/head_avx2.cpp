// Eight lanes of doubles as two AVX2 registers for logistic heads.
#if defined(__x86_64__)
#include <immintrin.h>

#include "head_simd.h"

namespace mmcl {
namespace {

struct Avx2Doubles {
  struct Float {
    __m256d low, high;
  };
  using Mask = Float;
  // Units of a tile whose sums stay in the 16 registers, two for each unit.
  static constexpr int combine_units = 6, gram_rows = 4, gram_units = 1, factor_units = 1;

  static MMCL_INLINE Float broadcast(double x) { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
  static MMCL_INLINE Float load(const double* from) {
    return {_mm256_loadu_pd(from), _mm256_loadu_pd(from + 4)};
  }
  static MMCL_INLINE void store(double* to, Float a) {
    _mm256_storeu_pd(to, a.low);
    _mm256_storeu_pd(to + 4, a.high);
  }
  static MMCL_INLINE Float load_first(const double* from, std::size_t lanes) {
    const __m256i limit = _mm256_set1_epi64x(lanes > kDoubles ? 8 : static_cast<long long>(lanes));
    const __m256i low = _mm256_cmpgt_epi64(limit, _mm256_setr_epi64x(0, 1, 2, 3));
    const __m256i high = _mm256_cmpgt_epi64(limit, _mm256_setr_epi64x(4, 5, 6, 7));
    return {_mm256_maskload_pd(from, low), _mm256_maskload_pd(from + 4, high)};
  }
  static MMCL_INLINE Float load_first(const float* from, std::size_t lanes) {
    const __m128i limit = _mm_set1_epi32(lanes > kDoubles ? 8 : static_cast<int>(lanes));
    const __m128i low = _mm_cmpgt_epi32(limit, _mm_setr_epi32(0, 1, 2, 3));
    const __m128i high = _mm_cmpgt_epi32(limit, _mm_setr_epi32(4, 5, 6, 7));
    return {_mm256_cvtps_pd(_mm_maskload_ps(from, low)),
            _mm256_cvtps_pd(_mm_maskload_ps(from + 4, high))};
  }
  static MMCL_INLINE Float add(Float a, Float b) {
    return {_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)};
  }
  static MMCL_INLINE Float subtract(Float a, Float b) {
    return {_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)};
  }
  static MMCL_INLINE Float mul(Float a, Float b) {
    return {_mm256_mul_pd(a.low, b.low), _mm256_mul_pd(a.high, b.high)};
  }
  static MMCL_INLINE Float div(Float a, Float b) {
    return {_mm256_div_pd(a.low, b.low), _mm256_div_pd(a.high, b.high)};
  }
  static MMCL_INLINE Float fma(Float a, Float b, Float c) {
    return {_mm256_fmadd_pd(a.low, b.low, c.low), _mm256_fmadd_pd(a.high, b.high, c.high)};
  }
  static MMCL_INLINE Float root(Float a) { return {_mm256_sqrt_pd(a.low), _mm256_sqrt_pd(a.high)}; }
  static MMCL_INLINE double root(double a) {
    return _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(a)));
  }
  static MMCL_INLINE Float larger(Float a, Float b) {
    return {_mm256_max_pd(a.low, b.low), _mm256_max_pd(a.high, b.high)};
  }
  static MMCL_INLINE Float smaller(Float a, Float b) {
    return {_mm256_min_pd(a.low, b.low), _mm256_min_pd(a.high, b.high)};
  }
  static MMCL_INLINE Mask less(Float a, Float b) {
    return {_mm256_cmp_pd(a.low, b.low, _CMP_LT_OQ), _mm256_cmp_pd(a.high, b.high, _CMP_LT_OQ)};
  }
  static MMCL_INLINE Float select(Mask m, Float a, Float b) {
    return {_mm256_blendv_pd(b.low, a.low, m.low), _mm256_blendv_pd(b.high, a.high, m.high)};
  }
  static MMCL_INLINE Float drop(Mask m, Float a) {
    return {_mm256_andnot_pd(m.low, a.low), _mm256_andnot_pd(m.high, a.high)};
  }
  static MMCL_INLINE Float two_to_the(Float shifted) {
    return {two_to_the(shifted.low), two_to_the(shifted.high)};
  }

 private:
  static MMCL_INLINE __m256d two_to_the(__m256d shifted) {
    const __m256i exponent = _mm256_slli_epi64(_mm256_castpd_si256(shifted), 52);
    return _mm256_castsi256_pd(_mm256_add_epi64(exponent, _mm256_set1_epi64x(1023ll << 52)));
  }
};

}  // namespace

const HeadKernels kAvx2Head = doubles::kHead<Avx2Doubles>;

}  // namespace mmcl
#endif

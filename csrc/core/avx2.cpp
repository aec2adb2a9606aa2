// The target for AVX2 with FMA.
#include "compiler.h"

#if defined(MMCL_X86_64)
#include "avx2_vector.h"
#include "contraction.h"
#include "embed_simd.h"
#include "gram_simd.h"
#include "head_simd.h"
#include "inner_products_simd.h"
#include "simd.h"
#include "softmax_simd.h"
#include "trajectory_simd.h"
#include "variant_simd.h"

namespace mmcl {

extern const Target kAvx2Target{
    "avx2",
    fuses<Avx2Floats>,
    simd::kKernels<Avx2Float8, false>,
    simd::kKernels<Avx2Float8, true>,
    simd::gram<Avx2Float8>,
    simd::kSoftmax<Avx2Float8>,
    lanes::embed<Avx2Floats>,
    lanes::inner_products<Avx2Floats>,
    lanes::train_run<Avx2Floats>,
    lanes::train_variant<Avx2Floats>,
    doubles::kHead<Avx2Doubles>,
};

}  // namespace mmcl
#endif

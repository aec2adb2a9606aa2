// The target for AVX-512 (F, DQ, BW, VL).
#include "compiler.h"

#if defined(MMCL_X86_64)
#include "avx512_vector.h"
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

extern const Target kAvx512Target{
    "avx512",
    fuses<Avx512Floats>,
    simd::kKernels<Avx512Floats, false>,
    simd::kKernels<Avx512Floats, true>,
    simd::gram<Avx512Floats>,
    simd::kSoftmax<Avx512Floats>,
    lanes::embed<Avx512Floats>,
    lanes::inner_products<Avx512Floats>,
    lanes::train_run<Avx512Floats>,
    lanes::train_variant<Avx512Floats>,
    doubles::kHead<Avx512Doubles>,
};

}  // namespace mmcl
#endif

// The target for ARM64, which always has NEON.
#include "compiler.h"

#if defined(MMCL_ARM64)
#include "contraction.h"
#include "embed_simd.h"
#include "gram_simd.h"
#include "head_simd.h"
#include "inner_products_simd.h"
#include "neon_vector.h"
#include "simd.h"
#include "softmax_simd.h"
#include "trajectory_simd.h"
#include "variant_simd.h"

namespace mmcl {

extern const Target kNeonTarget{
    "neon",
    fuses<NeonFloats>,
    simd::kKernels<NeonFloat4, false>,
    simd::kKernels<NeonFloat4, false>,
    simd::gram<NeonFloat4>,
    simd::kSoftmax<NeonFloat4>,
    lanes::embed<NeonFloats>,
    lanes::inner_products<NeonFloats>,
    lanes::train_run<NeonFloats>,
    lanes::train_variant<NeonFloats>,
    doubles::kHead<NeonDoubles>,
};

}  // namespace mmcl
#endif

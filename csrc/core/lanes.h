// What lanes_*.cpp make of their instruction set.
#pragma once

#include "embed.h"
#include "inner_products.h"
#include "trajectory.h"

namespace mmcl {

struct LanesKernels {
  EmbedKernel embed;
  InnerProductsKernel inner_products;
  TrainRun train_run;
};

extern const LanesKernels kPlainLanes, kAvx2Lanes, kAvx512Lanes;

}  // namespace mmcl

// Chi variates for the diagonal of a Bartlett factor (docs/stream.md, 5: reduced data).
#pragma once

#include <cstddef>
#include <cstdint>

#include "fill.h"

namespace mmcl {

// One draw per row: out[i] has degrees[i] >= 1 degrees of freedom and reads the substream of sample
// first_row + i alone, however often a proposal is rejected.
void chi(const Stream& stream, std::uint64_t first_row, const double* degrees, std::size_t count,
         double* out);

}  // namespace mmcl

// Chi variates for the diagonal of a Bartlett factor (docs/stream.md, 5: reduced data).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fill.h"

namespace mmcl {

// out[run][row]: degrees[run][row] >= 1 degrees of freedom, from the stream with the run's seed. A
// draw reads the substream of sample first_row + row alone, however often a proposal is rejected.
void chi(const std::vector<std::uint64_t>& seeds, std::uint32_t tag, std::uint64_t first_row,
         const double* degrees, std::size_t rows, double* out, int threads);

}  // namespace mmcl

// Workspace of an embedding; static, as in trajectory_workspace.h.
#pragma once

#include "embed.h"
#include "trajectory_workspace.h"

namespace mmcl {

// From row to row of the pre-activations: tiles may reach over the samples.
static inline std::size_t embed_width(const EmbedShape& s) { return padded(s.samples + 1); }

// Pre-activations with rows up to the next whole tile or unit, and both signal features.
static inline std::size_t embed_floats(const EmbedShape& s) {
  return (padded(s.m) + kUnit) * embed_width(s) + 2 * padded(s.m);
}

}  // namespace mmcl

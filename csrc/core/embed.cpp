#include "embed.h"

#include <vector>

#include "default_floats.h"
#include "target.h"
#include "trajectory_workspace.h"

namespace mmcl {

void embed(const Target& target, Embedding work) {
  std::vector<float> row(padded(work.samples + 1));
  work.row = row.data();
  const DefaultFloats environment;
  target.lanes->embed(work);
}

}  // namespace mmcl

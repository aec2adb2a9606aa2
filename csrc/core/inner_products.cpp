#include "inner_products.h"

#include <algorithm>
#include <stdexcept>

#include "default_floats.h"
#include "parallel.h"
#include "target.h"

namespace mmcl {

void inner_products(const Target& target, const std::vector<InnerProducts>& all, int threads) {
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
  for (const InnerProducts& job : all) {
    if (job.shared > job.rows || job.shared > job.columns) {
      throw std::invalid_argument("shared: expected at most the rows of both lists");
    }
  }
  const auto parts = std::min<std::uint64_t>(all.size(), static_cast<std::uint64_t>(threads));
  for_each_item(parts, all.size(), [&](std::uint64_t, std::size_t k) {
    if (all[k].rows == 0 || all[k].columns == 0) return;
    const DefaultFloats environment;
    target.inner_products(all[k]);
  });
}

}  // namespace mmcl

#include "inner_products.h"

#include <stdexcept>

#include "default_floats.h"
#include "target.h"

namespace mmcl {

void inner_products(const Target& target, const InnerProducts& work) {
  if (work.shared > work.rows || work.shared > work.columns) {
    throw std::invalid_argument("shared: expected at most the rows of both lists");
  }
  if (work.rows == 0 || work.columns == 0) return;
  const DefaultFloats environment;
  target.lanes->inner_products(work);
}

}  // namespace mmcl

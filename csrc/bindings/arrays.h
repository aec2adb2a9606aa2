// Access to arrays of Python, checked.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

namespace mmcl::bindings {

// The data of a contiguous array of a given type and shape.
template <class T>
T* contiguous_data(const pybind11::buffer_info& info, const std::vector<std::size_t>& shape,
                   const std::string& name, const std::string& type) {
  bool fits = info.item_type_is_equivalent_to<T>() &&
              info.ndim == static_cast<pybind11::ssize_t>(shape.size());
  pybind11::ssize_t stride = sizeof(T);
  std::string expected;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    const auto size = static_cast<pybind11::ssize_t>(shape[axis]);
    fits = fits && info.shape[axis] == size && (size <= 1 || info.strides[axis] == stride);
    stride *= size;
    expected = std::to_string(shape[axis]) + (expected.empty() ? "" : ", ") + expected;
  }
  if (!fits) {
    throw pybind11::value_error(name + ": expected contiguous " + type + " [" + expected + "]");
  }
  return static_cast<T*>(info.ptr);
}

}  // namespace mmcl::bindings

// Access to arrays of Python, checked.
#pragma once

#include <pybind11/pybind11.h>

#include <deque>
#include <string>
#include <vector>

namespace mmcl::bindings {

// The data of a contiguous array of a given type and shape.
template <class T>
T* contiguous_data(const pybind11::buffer_info& info, const std::vector<std::size_t>& shape,
                   const std::string& name, const std::string& type) {
  bool fits = info.item_type_is_equivalent_to<T>() &&
              info.ndim == static_cast<pybind11::ssize_t>(shape.size());
  std::size_t stride = sizeof(T);  // may wrap where a shape fits no memory, and then fits nothing
  std::string expected;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    const auto size = static_cast<pybind11::ssize_t>(shape[axis]);
    fits = fits && info.shape[axis] == size &&
           (size <= 1 || info.strides[axis] == static_cast<pybind11::ssize_t>(stride));
    stride *= shape[axis];
    expected = std::to_string(shape[axis]) + (expected.empty() ? "" : ", ") + expected;
  }
  if (!fits) {
    throw pybind11::value_error(name + ": expected contiguous " + type + " [" + expected + "]");
  }
  return static_cast<T*>(info.ptr);
}

// Arrays that stay held, so that nobody frees or resizes their memory while a call runs without the
// GIL. Make it before the GIL is released.
class HeldArrays {
 public:
  // The data of a contiguous array of a given type and shape.
  template <class T>
  T* contiguous(const pybind11::buffer& buffer, const std::vector<std::size_t>& shape,
                const std::string& name, const std::string& type, bool writable) {
    return contiguous_data<T>(hold(buffer, writable), shape, name, type);
  }

  const pybind11::buffer_info& hold(const pybind11::buffer& buffer, bool writable) {
    return held_.emplace_back(buffer.request(writable));
  }

 private:
  std::deque<pybind11::buffer_info> held_;  // elements stay where they are
};

}  // namespace mmcl::bindings

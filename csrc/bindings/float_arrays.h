// Float32 arrays of Python, checked and held.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "../core/softmax.h"

namespace mmcl::bindings {

constexpr auto kFloatSize = static_cast<pybind11::ssize_t>(sizeof(float));

inline std::string shape_of(const pybind11::buffer_info& info) {
  std::string text = "format '" + info.format + "' [";
  for (pybind11::ssize_t axis = 0; axis < info.ndim; ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(info.shape[axis]);
  }
  return text + "]";
}

// A buffer that stays held for as long as the call runs without the GIL.
struct FloatBuffer {
  pybind11::buffer_info info;
  FloatBuffer(const pybind11::buffer& buffer, const char* name, pybind11::ssize_t axes,
              bool writable)
      : info(buffer.request(writable)) {
    if (!info.item_type_is_equivalent_to<float>() || info.ndim != axes) {
      throw pybind11::value_error(std::string(name) + ": expected float32 of " +
                                  std::to_string(axes) + " axes, got " + shape_of(info));
    }
  }
  float* data() const { return static_cast<float*>(info.ptr); }
};

struct FloatMatrix : FloatBuffer {
  FloatMatrix(const pybind11::buffer& buffer, const char* name, bool writable)
      : FloatBuffer(buffer, name, 2, writable) {
    const pybind11::ssize_t rows = info.shape[0], columns = info.shape[1];
    const bool spaced =
        rows < 2 || (info.strides[0] >= columns * kFloatSize && info.strides[0] % kFloatSize == 0);
    if ((columns > 1 && info.strides[1] != kFloatSize) || !spaced) {
      throw pybind11::value_error(
          std::string(name) + ": expected contiguous rows that do not overlap, got strides [" +
          std::to_string(info.strides[0]) + ", " + std::to_string(info.strides[1]) +
          "] bytes for " + shape_of(info));
    }
  }
  template <class T>
  Matrix<T> matrix() const {
    return {data(), static_cast<std::size_t>(info.shape[0]),
            static_cast<std::size_t>(info.shape[1]), info.strides[0] / kFloatSize};
  }
};

struct FloatVector : FloatBuffer {
  FloatVector(const pybind11::buffer& buffer, const char* name, pybind11::ssize_t size,
              bool writable)
      : FloatBuffer(buffer, name, 1, writable) {
    if (info.shape[0] != size || (size > 1 && info.strides[0] != kFloatSize)) {
      throw pybind11::value_error(std::string(name) + ": expected " + std::to_string(size) +
                                  " contiguous values, got " + shape_of(info));
    }
  }
};

}  // namespace mmcl::bindings

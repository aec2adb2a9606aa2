// Signals of Python during a long call without the GIL: Ctrl-C ends it.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <optional>

namespace mmcl::bindings {

class Signals {
 public:
  // Whether to go on; asked without the GIL, which it takes at most ten times a second. Handlers of
  // signals run in Python's main thread alone, so elsewhere the answer is always yes.
  bool go_on() {
    const auto now = std::chrono::steady_clock::now();
    if (now - asked_ < std::chrono::milliseconds(100)) return true;
    asked_ = now;
    const pybind11::gil_scoped_acquire held;
    if (PyErr_CheckSignals() == 0) return true;
    raised_.emplace();  // takes the error, KeyboardInterrupt for instance
    return false;
  }

  // Raises what a handler raised; called with the GIL.
  void raise() {
    if (raised_) throw pybind11::error_already_set(*raised_);
  }

 private:
  std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
  std::optional<pybind11::error_already_set> raised_;
};

}  // namespace mmcl::bindings

// Registers the passes of csrc/core/softmax.h.
#pragma once

#include <pybind11/pybind11.h>

void bind_softmax(pybind11::module_& m);

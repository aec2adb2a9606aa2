// Registers csrc/core/contrast.h.
#pragma once

#include <pybind11/pybind11.h>

void bind_contrast(pybind11::module_& m);

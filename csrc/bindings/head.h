// Logistic heads, for the Python module.
#pragma once

#include <pybind11/pybind11.h>

void bind_heads(pybind11::module_& m);

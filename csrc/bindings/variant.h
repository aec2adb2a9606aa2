// Training runs of model variants, for the Python module.
#pragma once

#include <pybind11/pybind11.h>

void bind_variants(pybind11::module_& m);

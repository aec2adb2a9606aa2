// Training runs in coefficient space, for the Python module.
#pragma once

#include <pybind11/pybind11.h>

void bind_trajectories(pybind11::module_& m);

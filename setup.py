"""Build of the C++ extension `mmcl_fast._native`; everything else is in pyproject.toml."""

import shutil
import sys

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

PACKAGES = [
    "mmcl_fast",
    "mmcl_fast.data",
    "mmcl_fast.engines",
    "mmcl_fast.experiments",
    "mmcl_fast.losses",
    "mmcl_fast.reference",
    "mmcl_fast.torch_impl",
    "mmcl_fast.kernels",
    "mmcl_fast.bench",
]


class BuildNative(build_ext):
    """pybind11's build_ext with one clear sentence when there is no C++ compiler."""

    def build_extensions(self):
        compiler = (getattr(self.compiler, "compiler_cxx", None) or ["c++"])[0]
        if self.compiler.compiler_type == "unix" and shutil.which(compiler) is None:
            sys.exit(
                f"mmcl-fast needs a C++17 compiler to build its native extension and found no {compiler!r}: "
                "install g++ or clang++ (Debian: apt install g++), or set CXX to the compiler's path."
            )
        super().build_extensions()


setup(
    packages=PACKAGES,
    package_dir={
        "mmcl_fast": "mmcl_fast",
        "mmcl_fast.kernels": "kernels",
        "mmcl_fast.bench": "bench",
    },
    package_data={"mmcl_fast": ["py.typed"]},
    ext_modules=[Pybind11Extension("mmcl_fast._native", ["csrc/bindings/module.cpp"], cxx_std=17)],
    cmdclass={"build_ext": BuildNative},
)

"""Build of the C++ extension `mmcl_fast._native`; everything else is in pyproject.toml."""

import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup

# Folders whose names in the package are not their own.
FOLDERS = {"mmcl_fast": "mmcl_fast", "mmcl_fast.kernels": "kernels", "mmcl_fast.bench": "bench"}
PACKAGES = [
    name
    for package, folder in FOLDERS.items()
    for name in (package, *(f"{package}.{inner}" for inner in find_packages(folder)))
]
# Each target is compiled for its own instruction set and chosen at run time. No fast-math: the
# stream's definition (docs/stream.md) is exact, and reassociation would change its values.
CORE_NAMES = (
    "chi embed fill gram head head_plain inner_products lanes_plain plain softmax target trajectory"
)
CORE = [f"csrc/core/{name}.cpp" for name in CORE_NAMES.split()]
BINDINGS = [f"csrc/bindings/{name}.cpp" for name in ("module", "head", "softmax", "trajectory")]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [
    *(*AVX2, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"),
    "-mprefer-vector-width=512",
    *("-Wno-uninitialized", "-Wno-maybe-uninitialized"),  # in g++ 12's own intrinsics header
]
TARGETS = {
    "csrc/core/avx2.cpp": AVX2,
    "csrc/core/avx512.cpp": AVX512,
    "csrc/core/head_avx2.cpp": AVX2,
    "csrc/core/head_avx512.cpp": AVX512,
    "csrc/core/lanes_avx2.cpp": AVX2,
    "csrc/core/lanes_avx512.cpp": AVX512,
}
FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"]


class BuildNative(build_ext):
    """pybind11's build_ext with flags per target, and one clear sentence without a compiler."""

    def build_extensions(self):
        compiler = (getattr(self.compiler, "compiler_cxx", None) or ["c++"])[0]
        if self.compiler.compiler_type == "unix" and shutil.which(compiler) is None:
            sys.exit(
                f"mmcl-fast needs a C++17 compiler to build its native extension and found no "
                f"{compiler!r}: install g++ or clang++ (Debian: apt install g++), or set CXX to "
                "the compiler's path."
            )
        super().build_extensions()

    def build_extension(self, ext):
        if platform.machine() in ("x86_64", "AMD64"):

            def compile_target(target):
                source, flags = target
                flags = [*ext.extra_compile_args, *flags]
                return self.compiler.compile([source], self.build_temp, extra_postargs=flags)

            with ThreadPoolExecutor() as pool:
                for objects in pool.map(compile_target, TARGETS.items()):
                    ext.extra_objects += objects
        super().build_extension(ext)


ParallelCompile("NPY_NUM_BUILD_JOBS").install()  # as many files at once as there are cores
setup(
    packages=PACKAGES,
    package_dir=FOLDERS,
    package_data={"mmcl_fast": ["py.typed", "*.pyi"]},
    ext_modules=[
        Pybind11Extension(
            "mmcl_fast._native",
            [*BINDINGS, *CORE],
            depends=[*TARGETS, *map(str, Path("csrc").glob("*/*.h"))],
            extra_compile_args=FLAGS,
            cxx_std=17,
        )
    ],
    cmdclass={"build_ext": BuildNative},
)

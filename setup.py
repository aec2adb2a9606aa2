"""Build of the C++ extension `mmcl_fast._native`; everything else is in pyproject.toml."""

import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

# Folders whose names in the package are not their own.
FOLDERS = {"mmcl_fast": "mmcl_fast", "mmcl_fast.kernels": "kernels", "mmcl_fast.bench": "bench"}
PACKAGES = [
    name
    for package, folder in FOLDERS.items()
    for name in (package, *(f"{package}.{inner}" for inner in find_packages(folder)))
]
# Each target is compiled for its own instruction set and chosen at run time. No fast-math: the
# stream's definition (docs/stream.md) is exact, and reassociation would change its values.
# A source with flags of its own has them beside it, x.cpp in x.cflags, and is for x86-64 alone.
SOURCES = sorted(map(str, [*Path("csrc/core").glob("*.cpp"), *Path("csrc/bindings").glob("*.cpp")]))
TARGETS = {
    source: flags.read_text(encoding="utf-8").split()
    for source in SOURCES
    if (flags := Path(source).with_suffix(".cflags")).exists()
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


class EditableWheel(editable_wheel):
    """An editable install whose checkout is on the path too.

    With folders of other names setuptools installs an import hook, which type checkers do not
    follow. Where setuptools asks for its strategy by another name, they do not find the package.
    """

    def _select_strategy(self, *arguments):
        return WithPath(super()._select_strategy(*arguments))


class WithPath:
    """Setuptools' own way of an editable install, and a .pth file with the checkout's path."""

    def __init__(self, strategy):
        self.strategy = strategy

    def __enter__(self):
        self.strategy.__enter__()
        return self

    def __exit__(self, *error):
        return self.strategy.__exit__(*error)

    def __call__(self, wheel, files, mapping):
        self.strategy(wheel, files, mapping)
        wheel.writestr("__editable__.mmcl_fast_checkout.pth", f"{Path().resolve()}\n")


ParallelCompile("NPY_NUM_BUILD_JOBS").install()  # as many files at once as there are cores
setup(
    packages=PACKAGES,
    package_dir=FOLDERS,
    package_data={"mmcl_fast": ["py.typed", "*.pyi"]},
    ext_modules=[
        Pybind11Extension(
            "mmcl_fast._native",
            [source for source in SOURCES if source not in TARGETS],
            depends=[
                *TARGETS,
                *map(str, [*Path("csrc").glob("*/*.h"), *Path("csrc").glob("*/*.cflags")]),
            ],
            extra_compile_args=FLAGS,
            cxx_std=17,
        )
    ],
    cmdclass={"build_ext": BuildNative, "editable_wheel": EditableWheel},
)

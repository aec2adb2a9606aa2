"""Build of the C++ extension `mmcl_fast._native`; everything else is in pyproject.toml."""

import itertools
import os
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
# GCC passes over the last one, and over other unknown -Wno-; Clang would name each.
FLAGS = [
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-warning-option",
]
X86_64 = "x86_64"
# What a platform's tag ends with, where Python names an architecture otherwise than compilers do.
NAMES = {"amd64": X86_64, "arm64": "arm64", "universal2": f"arm64 {X86_64}"}
WINDOWS = {"win-amd64": "x86_64-pc-windows-msvc", "win-arm64": "aarch64-pc-windows-msvc"}


def architectures(platform, archflags):
    """Architectures that are built for, which need not be this machine's.

    `platform` is the wheel's (linux-x86_64, macosx-11.0-universal2, win-amd64); on macOS
    `archflags`, the variable ARCHFLAGS, has the last word.
    """
    words = archflags.split() if platform.startswith("macosx") else []
    if named := {after for word, after in itertools.pairwise(words) if word == "-arch"}:
        return named
    last = platform.rpartition("-")[2]
    return set(NAMES.get(last, last).split())


def flags_of(flags, built_for):
    """Flags of a source for x86-64 alone: of several architectures, for that one."""
    if built_for == {X86_64}:
        return flags
    return [word for flag in flags for word in (f"-Xarch_{X86_64}", flag)]


def for_clang_cl(flags):
    """The same flags as clang-cl takes them."""
    return [f"/clang:{flag}" for flag in flags]


class BuildNative(build_ext):
    """pybind11's build_ext with flags per target, and one clear sentence without a compiler."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            self.use_clang_cl()
        elif self.compiler.compiler_type == "unix":
            compiler = (getattr(self.compiler, "compiler_cxx", None) or ["c++"])[0]
            if shutil.which(compiler) is None:
                sys.exit(
                    f"mmcl-fast needs a C++17 compiler to build its native extension and found no "
                    f"{compiler!r}: install g++ or clang++ (Debian: apt install g++), or set CXX "
                    "to the compiler's path."
                )
        super().build_extensions()

    def use_clang_cl(self):
        """Compile as Visual Studio's own compiler is called, by Clang: the core is GNU C++."""
        clang = shutil.which(os.environ.get("CXX", "clang-cl"))
        if self.plat_name not in WINDOWS or clang is None:
            sys.exit(
                "mmcl-fast needs clang-cl to build its native extension on Windows, for x86-64 or "
                f"ARM64, and found {clang or 'none'} for {self.plat_name}: install Visual Studio's "
                "component 'C++ Clang tools', or set CXX to clang-cl's path."
            )
        self.compiler.initialize(self.plat_name)
        self.compiler.cc = clang
        for ext in self.extensions:
            given = [flag for flag in ext.extra_compile_args if flag not in FLAGS]
            target = f"--target={WINDOWS[self.plat_name]}"
            ext.extra_compile_args = [*given, target, *for_clang_cl(FLAGS)]

    def build_extension(self, ext):
        built_for = architectures(self.plat_name, os.environ.get("ARCHFLAGS", ""))

        def compile_target(target):
            source, flags = target
            own = flags_of(flags, built_for)
            if self.compiler.compiler_type == "msvc":
                own = for_clang_cl(own)
            arguments = [*ext.extra_compile_args, *own]
            return self.compiler.compile([source], self.build_temp, extra_postargs=arguments)

        if X86_64 in built_for:
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
            extra_compile_args=[*FLAGS],  # pybind11 adds its own to the list
            cxx_std=17,
        )
    ],
    cmdclass={"build_ext": BuildNative, "editable_wheel": EditableWheel},
)

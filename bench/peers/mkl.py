"""Intel MKL's vector statistics library by ctypes: the fastest peer found for CPU normals."""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

GENERATOR_STEP = 1 << 20  # VSL numbers its basic generators in steps of this
GENERATORS = {"MCG31": 1, "MCG59": 4, "MT19937": 8, "SFMT19937": 13, "ARS5": 15, "Philox4x32": 16}
METHODS = {"BoxMuller": 0, "BoxMuller2": 1, "ICDF": 2}
Fill = Callable[[], None]


class MklMissingError(RuntimeError):
    """The optional peer is not installed; the message says so."""


def paths(out: npt.NDArray[np.float32]) -> dict[str, Fill]:
    """A function for every (generator, method) that fills `out` with float32 standard normals."""
    library = _load()
    return {
        f"MKL {g} {m}": _path(library, GENERATORS[g], METHODS[m], out)
        for g in GENERATORS
        for m in METHODS
    }


def _load() -> ctypes.CDLL:
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        raise MklMissingError("mkl is not installed (pip install mkl)") from None
    libraries = [f for f in files if f.name.startswith("libmkl_rt.so")]
    if not libraries:
        raise MklMissingError("the installed mkl has no libmkl_rt.so")
    library = ctypes.CDLL(str(libraries[0].locate()))
    library.MKL_Set_Threading_Layer(1)  # sequential
    return library


def _path(library: ctypes.CDLL, generator: int, method: int, out: npt.NDArray[np.float32]) -> Fill:
    stream = ctypes.c_void_p()
    _check(library.vslNewStream(ctypes.byref(stream), generator * GENERATOR_STEP, 1))
    data, size = out.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), out.size
    zero, one = ctypes.c_float(0), ctypes.c_float(1)

    def fill() -> None:
        _check(library.vsRngGaussian(method, stream, size, data, zero, one))

    return fill


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"MKL VSL: status {status}")

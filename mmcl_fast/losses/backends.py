"""Which implementation runs: one table, asked once.

Every implementation has the functions of `Implementation`, so nothing branches on a device later.
A backend asked for by name never falls back to another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from mmcl_fast.environment import triton_interpreted
from mmcl_fast.errors import BackendUnavailableError, ConfigError
from mmcl_fast.losses.contrast import Contrast, Forward, Gradients, Requested

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Problem(NamedTuple):
    """What a backend can run or not: sizes, dtype and device; whether single pairs are excluded."""

    rows: int
    columns: int
    features: int
    dtype: torch.dtype
    device: torch.device
    exclusions: bool = False


class Implementation(Protocol):
    """The functions of every backend's module; `mmcl_fast.losses.torch_backend` documents them."""

    def contrast_forward(
        self, contrast: Contrast, requested: Requested, weight: float | None
    ) -> Forward:
        """Row losses, with their gradients or the statistics for them."""

    def contrast_backward(
        self,
        contrast: Contrast,
        requested: Requested,
        statistics: tuple[Tensor, ...],
        upstream: Tensor,
    ) -> Gradients:
        """Gradients of sum_i upstream_i loss_i."""


@dataclass(frozen=True)
class Backend:
    """One implementation: where it is, and why it cannot run a problem (None: it can)."""

    name: str
    module: str  # imported on first use
    why_not: Callable[[Problem], str | None]


def _torch_why_not(problem: Problem) -> str | None:
    if problem.dtype not in FLOAT_DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOAT_DTYPES)
        return f"expected dtype {names}, got {str(problem.dtype).removeprefix('torch.')}"
    return None


def _triton_why_not(problem: Problem) -> str | None:
    cpu = problem.device.type == "cpu"
    if not (triton_interpreted() if cpu else problem.device.type == "cuda"):
        return (
            "expected tensors on CUDA (on the CPU in a process started with TRITON_INTERPRET=1), "
            f"got device {problem.device}"
        )
    if not _TRITON_INSTALLED:
        return "expected Triton to be installed, got none"
    if not cpu and _compute_capability(problem.device) < (8, 0):
        return "expected an NVIDIA GPU of compute capability 8.0 or later"
    dtype = str(problem.dtype).removeprefix("torch.")
    if dtype not in ("float16", "bfloat16", "float32"):
        return f"expected dtype float16, bfloat16, float32, got {dtype}"
    if cpu and dtype == "bfloat16":  # Triton's interpreter multiplies the bits of bfloat16
        return "expected dtype float16, float32 in Triton's interpreter, got bfloat16"
    if problem.exclusions:
        return "expected no exclude_mask, got one"
    if (most := max(problem.rows, problem.columns)) > _TRITON_MAX_ROWS:
        return f"expected at most {_TRITON_MAX_ROWS} rows, got {most}"
    return None


_TRITON_INSTALLED = find_spec("triton") is not None  # does not import it
# Kernels count rows in 32 bits, also to the end of the last of the ranges that they are cut into:
# less than a tile past the last row for each of them, so less than 1057 * 256 < 2^24 together.
_TRITON_MAX_ROWS = 2**31 - 2**24


def _compute_capability(device: torch.device) -> tuple[int, int]:
    if torch.version.cuda is None:  # AMD's devices are called cuda as well
        return (0, 0)
    properties = torch.cuda.get_device_properties(device)  # a constant for torch.compile
    return properties.major, properties.minor


_ALL = (
    Backend("triton", "mmcl_fast.losses.triton_backend", _triton_why_not),
    Backend("torch", "mmcl_fast.losses.torch_backend", _torch_why_not),
)

BACKENDS = {backend.name: backend for backend in _ALL}  # order = preference of "auto"


def check_name(choice: str) -> str:
    """`choice` if it is "auto" or the name of a backend.

    Raises:
        ConfigError: It is neither; the message lists what is known.
    """
    if not isinstance(choice, str) or (choice != "auto" and choice not in BACKENDS):
        known = ", ".join(f'"{name}"' for name in ("auto", *BACKENDS))
        raise ConfigError(f"backend: expected one of {known}, got {choice!r}")
    return choice


def choose(choice: str, problem: Problem) -> Backend:
    """The backend that runs `problem`.

    Args:
        choice: "auto" for the first that can run, or a name, which never falls back.
        problem: Sizes, dtype and device.

    Returns: The table's entry.

    Raises:
        ConfigError: Unknown name.
        BackendUnavailableError: It cannot run the problem; the message says why.
    """
    named = check_name(choice) != "auto"
    reasons = []
    for backend in [BACKENDS[choice]] if named else BACKENDS.values():
        reason = backend.why_not(problem)
        if reason is None:
            return backend
        reasons.append(f"{backend.name}: {reason}")
    raise BackendUnavailableError("; ".join(reasons))


def name_for(choice: str, contrast: Contrast) -> str:
    """Name of the backend that runs a contrast; arguments and errors as for `choose`."""
    query = contrast.query
    # What the table answers, without the time of asking it, which counts in a small batch.
    if choice == "auto" and query.is_cpu and not triton_interpreted():
        return "torch"
    rows = contrast.rows
    columns = rows if contrast.key is None else contrast.key.shape[0]
    pairs = contrast.pairwise is not None and contrast.pairwise.excluded is not None
    problem = Problem(rows, columns, query.shape[1], query.dtype, query.device, pairs)
    return choose(choice, problem).name


def module_of(name: str) -> Implementation:
    """The module of a backend that was chosen, imported on first use."""
    return cast(Implementation, import_module(BACKENDS[name].module))


__all__ = [
    "BACKENDS",
    "FLOAT_DTYPES",
    "Backend",
    "Implementation",
    "Problem",
    "check_name",
    "choose",
    "module_of",
    "name_for",
]

"""Which implementation runs: one table, asked once.

Every implementation has the functions of `Implementation`, so nothing branches on a device later.
A backend asked for by name never falls back to another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from mmcl_fast.contrast import Contrast, Forward, Gradients, Wanted
from mmcl_fast.errors import BackendUnavailableError, ConfigError

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Problem:
    """What a backend must know to say whether it can run: N x M scores of D features."""

    rows: int
    columns: int
    features: int
    dtype: torch.dtype
    device: torch.device
    options: frozenset[str] = frozenset()  # fields of `Contrast` in use, and its form


class Implementation(Protocol):
    """The functions of every backend's module; `mmcl_fast.torch_impl` documents them."""

    def contrast_forward(self, contrast: Contrast, wanted: Wanted, weight: float | None) -> Forward:
        """Row losses, with their gradients or the statistics that these take."""

    def contrast_backward(
        self,
        contrast: Contrast,
        wanted: Wanted,
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


_ALL = (Backend("torch", "mmcl_fast.torch_impl", _torch_why_not),)

BACKENDS = {backend.name: backend for backend in _ALL}  # order = preference of "auto"


def check_name(choice: str) -> str:
    """`choice` if it is "auto" or the name of a backend.

    Raises:
        ConfigError: It is neither; the message lists what is known.
    """
    if choice != "auto" and choice not in BACKENDS:
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
]

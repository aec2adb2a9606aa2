"""Names of the checks; free of torch, so the command line starts fast."""

from __future__ import annotations

from typing import Literal, get_args

CheckName = Literal[
    "growth",
    "first_stage",
    "scale",
    "signs",
    "c_mu",
    "test_error",
    "convergence",
    "stage2",
    "pairs",
    "concentration",
    "couplings",
]
CHECK_NAMES: tuple[CheckName, ...] = get_args(CheckName)

__all__ = ["CHECK_NAMES", "CheckName"]

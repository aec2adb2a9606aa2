"""Names of the checks; free of torch, so the command line starts fast."""

from __future__ import annotations

from typing import Literal, get_args

CheckName = Literal["growth", "first_stage", "scale", "signs", "c_mu", "test_error"]
CHECK_NAMES: tuple[CheckName, ...] = get_args(CheckName)

__all__ = ["CHECK_NAMES", "CheckName"]

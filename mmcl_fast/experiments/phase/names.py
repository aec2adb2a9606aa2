"""Names of the planes; free of torch, so the command line starts fast."""

from __future__ import annotations

from typing import Literal

PlaneName = Literal["n-snr", "cmu-nsnr2", "d", "m"]

AXIS_NAMES = ("n", "d", "m", "snr", "n_snr2", "c_mu", "noise_rate", "noise_start")
"""Columns that can be an axis of a plane."""

__all__ = ["AXIS_NAMES", "PlaneName"]

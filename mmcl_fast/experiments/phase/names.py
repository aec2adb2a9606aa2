"""Names of the planes; free of torch, so the command line starts fast."""

from __future__ import annotations

from typing import Literal

PlaneName = Literal["n-snr", "cmu-nsnr2", "d", "m"]

__all__ = ["PlaneName"]

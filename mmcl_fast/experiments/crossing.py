"""Where a sampled curve passes a level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def first_crossing(
    x: Sequence[float], y: Sequence[float] | npt.NDArray[np.float64], level: float
) -> float:
    """Where a sampled curve first rises through a level, linear between samples; NaN if nowhere."""
    for k in range(1, len(x)):
        if y[k - 1] < level <= y[k]:
            share = (level - y[k - 1]) / (y[k] - y[k - 1])
            return float(x[k - 1] + share * (x[k] - x[k - 1]))
    return math.nan


__all__ = ["first_crossing"]

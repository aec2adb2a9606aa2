"""One axis of a plane: a numeric setting, or a quantity that determines one, and its values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args, get_type_hints

import numpy as np

from mmcl_fast.config import FIELD_NAMES, TrainConfig
from mmcl_fast.derived import DERIVED
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.phase.names import NO_AXES, QUANTITIES
from mmcl_fast.names import suggestion
from mmcl_fast.sweep.plan.axes import INTEGERS

AXIS_NAMES = (
    *("n", "d", "m"),
    *QUANTITIES,
    *(
        name
        for name, hint in get_type_hints(TrainConfig).items()
        if {int, float} & {*(get_args(hint) or (hint,))} and name not in {"n", "d", "m", *NO_AXES}
    ),
)
"""What can be an axis of a plane."""

DETERMINES = MappingProxyType(
    {
        **DERIVED,
        "nu_share": "nu_norm",
        "spurious_share": "spurious_norm",
        "third_share": "mu_c_norm",
    }
)
"""The setting that a quantity determines; two axes may not determine one."""

LINEAR = frozenset(
    {
        "pair_noise",
        "spurious_correlation",
        "spurious_correlation_test",
        "label_noise",
        "view_mask",
        "momentum",
        "prior_exponent",
    }
)
"""Axes that are linear wherever they begin: shares, correlations, exponents."""


@dataclass(frozen=True)
class Range:
    """One axis: logarithmic, or linear for shares and correlations and from 0 or below.

    Attributes:
        name: One of `AXIS_NAMES`.
        low: First value.
        high: Last value, above it.

    Raises: ConfigError: another name, or another order.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.name not in AXIS_NAMES:
            raise ConfigError(f"{self.name}: expected {_known(self.name)}")
        if self.is_whole and self.low < 1:
            raise ConfigError(f"{self.name}: expected a range from 1 or more, got {self.low:g}")
        if not -math.inf < self.low < self.high < math.inf:
            raise ConfigError(
                f"{self.name}: expected a range from a number to a larger one, got "
                f"{self.low:g}, {self.high:g}"
            )

    @property
    def is_whole(self) -> bool:
        """Whether values are integers."""
        return self.name in INTEGERS

    @property
    def is_linear(self) -> bool:
        """Whether values are equidistant."""
        return self.name in LINEAR or self.low <= 0

    @property
    def determines(self) -> str:
        """The setting that the axis sets."""
        return DETERMINES.get(self.name, self.name)

    def values(self, points: int) -> list[float]:
        """At most `points` values from low to high; integers are not repeated."""
        spaced = np.linspace if self.is_linear else np.geomspace
        values: list[float] = spaced(self.low, self.high, points).tolist()
        if self.is_whole:
            return [float(v) for v in dict.fromkeys(round(v) for v in values)]
        return values


def _known(name: str) -> str:
    """What an axis may be, for a name that is none."""
    if name in NO_AXES:
        return "another axis of a plane: every run of a plane has it the same, or its own seed"
    if name in FIELD_NAMES:
        return "an axis of a plane, which is a number, got a setting of words"
    listed = f"a number among the settings (mmcl train --help), or {', '.join(QUANTITIES)}"
    return f"an axis of a plane, got another; {suggestion(name, AXIS_NAMES, listed)}"


__all__ = ["AXIS_NAMES", "DETERMINES", "LINEAR", "Range"]

"""Planes of the phase diagrams, and the theory's predictions on them.

Between the cells of a plane the growth rate and the initial scale of the noise stay fixed
(`experiments.scaling`), so neighbouring cells differ in the settings of the axes alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments import borders
from mmcl_fast.experiments.borders import TheoryPoint
from mmcl_fast.experiments.phase.names import AXIS_NAMES, PlaneName
from mmcl_fast.experiments.probe import Probe
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.theory import Check

Floats = npt.NDArray[np.float64]
SIGMA_XI = 1.0
WHOLE = ("n", "d", "m")
BASE = Scaled(d=10**7, noise_rate=0.1)
ON_TRAINING = Probe()


@dataclass(frozen=True)
class Range:
    """One axis, logarithmic.

    Attributes:
        name: Column of the store, one of `AXIS_NAMES`.
        low: First value, > 0.
        high: Last value, above it.

    Raises: ConfigError: another name, or another order.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.name not in AXIS_NAMES:
            raise ConfigError(
                f"{self.name}: expected an axis of a plane ({', '.join(AXIS_NAMES)}), got another"
            )
        if self.name in WHOLE and self.low < 1:
            raise ConfigError(f"{self.name}: expected a range from 1 or more, got {self.low:g}")
        if not 0 < self.low < self.high < math.inf:
            raise ConfigError(
                f"{self.name}: expected a range from a number > 0 to a larger one, got "
                f"{self.low:g}, {self.high:g}"
            )

    def values(self, points: int) -> list[float]:
        """At most `points` values from low to high; integers are not repeated."""
        values: list[float] = np.geomspace(self.low, self.high, points).tolist()
        if self.name in WHOLE:
            return [float(v) for v in dict.fromkeys(round(v) for v in values)]
        return values


@dataclass(frozen=True)
class Plane:
    """Two axes, the fixed settings, and the head.

    Raises: ConfigError: both axes set the same, or a corner has settings that no run can have.
    """

    x: Range
    y: Range
    base: Scaled = BASE
    probe: Probe = ON_TRAINING

    def __post_init__(self) -> None:
        names = (self.x.name, self.y.name)
        if names[0] == names[1] or set(names) == {"snr", "n_snr2"}:
            raise ConfigError(f"y: expected an axis that sets another thing than {names[0]}")
        for x in (self.x.low, self.x.high):
            for y in (self.y.low, self.y.high):
                self.cell(x, y)

    @property
    def name(self) -> str:
        """Its own, or its axes'."""
        own = replace(self, probe=ON_TRAINING)
        known = (name for name, plane in PLANES.items() if plane == own)
        return next(known, f"{self.x.name}-{self.y.name}")

    def at(self, x: float, y: float) -> Scaled:
        """Settings at a point of the plane; sizes need not be integers."""
        given = {self.x.name: x, self.y.name: y}
        point = replace(self.base, **{k: v for k, v in given.items() if k != "snr"})
        return replace(point, n_snr2=point.n * given["snr"] ** 2) if "snr" in given else point

    def cell(self, x: float, y: float) -> TrainConfig:
        """Settings of the runs of a cell, with sizes rounded to integers."""
        sizes = {k: round(v) for k, v in ((self.x.name, x), (self.y.name, y)) if k in WHOLE}
        return replace(self.at(x, y), **sizes).config(**self.probe.settings)


PLANES: MappingProxyType[PlaneName, Plane] = MappingProxyType(
    {
        "n-snr": Plane(Range("n", 16, 512), Range("snr", 0.03, 0.8)),
        "cmu-nsnr2": Plane(Range("c_mu", 0.25, 8), Range("n_snr2", 0.05, 20)),
        "d": Plane(Range("d", 200, 1e9), Range("n_snr2", 0.05, 20)),
        "m": Plane(Range("m", 2, 512), Range("n_snr2", 0.05, 20)),
    }
)


def log_t1_ratio(point: Scaled, modality: str) -> float:
    """`borders.log_t1_ratio` at a point of a plane."""
    return borders.log_t1_ratio(_theory(point), modality)


def conditions(point: Scaled, modality: str) -> list[Check]:
    """`borders.conditions` at a point of a plane."""
    return borders.conditions(_theory(point), modality)


def margin(point: Scaled, modality: str) -> float:
    """`borders.margin` at a point of a plane."""
    return borders.margin(_theory(point), modality)


def window(point: Scaled, modality: str) -> list[Check]:
    """`borders.window` at a point of a plane."""
    return borders.window(_theory(point), modality)


def _theory(point: Scaled) -> TheoryPoint:
    return TheoryPoint(
        n=point.n,
        d=point.d,
        m=point.m,
        eta=point.eta,
        tau=point.tau,
        sigma_0=point.sigma_0,
        sigma_xi=SIGMA_XI,
        sigma_eps=TrainConfig().sigma_eps,
        mu_norm=point.mu_norm,
        mu_b_norm=point.c_mu * point.mu_norm,
    )


def overlay(
    plane: Plane, xs: Sequence[float], ys: Sequence[float], modality: str
) -> tuple[Floats, Floats, Floats]:
    """Log T1 ratio, margins of Assumption 4.1 and of the lemma's window, [ys, xs]; 0 on borders."""
    points = [[plane.at(x, y) for x in xs] for y in ys]
    ratios = [[log_t1_ratio(point, modality) for point in row] for row in points]
    margins = [[margin(point, modality) for point in row] for row in points]
    windows = [[borders.window_margin(_theory(point), modality) for point in row] for row in points]
    return np.array(ratios), np.array(margins), np.array(windows)


__all__ = ["PLANES", "Plane", "Range", "conditions", "log_t1_ratio", "margin", "overlay", "window"]

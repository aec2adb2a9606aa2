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
from mmcl_fast.experiments.phase.names import PlaneName
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.theory import Check, assumption_4_1, t1_multi, t1_single

Floats = npt.NDArray[np.float64]
SIGMA_XI = 1.0
ORDER_ONE = 10.0  # n SNR^2 = Theta(1) is taken to hold within this factor
WHOLE = ("n", "d", "m")
BASE = Scaled(d=10**7, noise_rate=0.1)


@dataclass(frozen=True)
class Range:
    """One axis, logarithmic.

    Attributes:
        name: Column of the store: n, d, m, snr, n_snr2 or c_mu.
        low: First value.
        high: Last value.
    """

    name: str
    low: float
    high: float

    def values(self, points: int) -> list[float]:
        """At most `points` values from low to high; integers are not repeated."""
        values: list[float] = np.geomspace(self.low, self.high, points).tolist()
        if self.name in WHOLE:
            return [float(v) for v in dict.fromkeys(round(v) for v in values)]
        return values


@dataclass(frozen=True)
class Plane:
    """Two axes and the fixed settings."""

    x: Range
    y: Range
    base: Scaled = BASE

    def at(self, x: float, y: float) -> Scaled:
        """Settings at a point of the plane; sizes need not be integers."""
        given = {self.x.name: x, self.y.name: y}
        point = replace(self.base, **{k: v for k, v in given.items() if k != "snr"})
        return replace(point, n_snr2=point.n * given["snr"] ** 2) if "snr" in given else point

    def cell(self, x: float, y: float) -> TrainConfig:
        """Settings of the runs of a cell, with sizes rounded to integers."""
        sizes = {k: round(v) for k, v in ((self.x.name, x), (self.y.name, y)) if k in WHOLE}
        return replace(self.at(x, y), **sizes).config()


PLANES: MappingProxyType[PlaneName, Plane] = MappingProxyType(
    {
        "n-snr": Plane(Range("n", 16, 512), Range("snr", 0.03, 0.8)),
        "cmu-nsnr2": Plane(Range("c_mu", 0.25, 8), Range("n_snr2", 0.05, 20)),
        "d": Plane(Range("d", 200, 1e9), Range("n_snr2", 0.05, 20)),
        "m": Plane(Range("m", 2, 512), Range("n_snr2", 0.05, 20)),
    }
)


def log_t1_ratio(point: Scaled, modality: str) -> float:
    """Log of T1 of the noise (Lemma 5.2) over T1 of the signal (Lemma 5.4); > 0: signal is first.

    Single-modal training is Lemma 5.4's rate with C_mu = 1: its signal meets only itself.
    """
    shared = {"sigma_0": point.sigma_0, "eta": point.eta, "m": point.m, "tau": point.tau}
    noise = t1_single(sigma_xi=SIGMA_XI, d=point.d, n=point.n, **shared)
    c_mu = point.c_mu if modality == "multi" else 1.0
    return math.log(noise / t1_multi(mu_norm=point.mu_norm, c_mu=c_mu, **shared))


def conditions(point: Scaled, modality: str) -> list[Check]:
    """Assumption 4.1 at a point; its conditions on modality B for multi-modal training only."""
    checks = assumption_4_1(
        n=point.n,
        d=point.d,
        m=point.m,
        eta=point.eta,
        sigma_0=point.sigma_0,
        sigma_xi=SIGMA_XI,
        sigma_eps=TrainConfig().sigma_eps,
        mu_norm=point.mu_norm,
        mu_b_norm=point.c_mu * point.mu_norm,
        order_one=ORDER_ONE,
    )
    return [c for c in checks if modality == "multi" or not c.condition.startswith("C_mu")]


def margin(point: Scaled, modality: str) -> float:
    """Margin of Assumption 4.1: log of the factor to its nearest boundary, < 0 where it fails."""
    margins = []
    for check in conditions(point, modality):
        ratio = math.log(check.left / check.right)
        if ">=" in check.condition:
            margins.append(ratio)
        elif "<=" in check.condition:
            margins.append(-ratio)
        else:
            margins.append(math.log(ORDER_ONE) - abs(ratio))
    return min(margins)


def overlay(
    plane: Plane, xs: Sequence[float], ys: Sequence[float], modality: str
) -> tuple[Floats, Floats]:
    """`log_t1_ratio` and `margin` at each point, each [ys, xs]; both are 0 on a boundary."""
    points = [[plane.at(x, y) for x in xs] for y in ys]
    ratios = [[log_t1_ratio(point, modality) for point in row] for row in points]
    margins = [[margin(point, modality) for point in row] for row in points]
    return np.array(ratios), np.array(margins)


__all__ = ["PLANES", "Plane", "Range", "conditions", "log_t1_ratio", "margin", "overlay"]

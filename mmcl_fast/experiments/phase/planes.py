"""Planes of the phase diagrams, and what the theory draws on them.

Between the cells of a plane the growth rate and the initial scale of the noise stay fixed
(`experiments.scaling`), so a cell differs from the next in what its axes say and in nothing else.
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
        """About this many values from end to end; whole numbers are not repeated."""
        found: list[float] = np.geomspace(self.low, self.high, points).tolist()
        if self.name in WHOLE:
            return [float(v) for v in dict.fromkeys(round(v) for v in found)]
        return found


@dataclass(frozen=True)
class Plane:
    """Two axes and what is fixed."""

    x: Range
    y: Range
    base: Scaled = BASE

    def at(self, x: float, y: float) -> Scaled:
        """The settings at a place, whole or not."""
        given = {self.x.name: x, self.y.name: y}
        point = replace(self.base, **{k: v for k, v in given.items() if k != "snr"})
        return replace(point, n_snr2=point.n * given["snr"] ** 2) if "snr" in given else point

    def cell(self, x: float, y: float) -> TrainConfig:
        """The settings of the runs of a cell, whose sizes are whole."""
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
    """Assumption 4.1 at a place; what it asks of modality B only where there is one."""
    found = assumption_4_1(
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
    return [c for c in found if modality == "multi" or not c.condition.startswith("C_mu")]


def margin(point: Scaled, modality: str) -> float:
    """How far Assumption 4.1 holds: log of the factor to its nearest border, < 0 outside."""
    found = []
    for check in conditions(point, modality):
        ratio = math.log(check.left / check.right)
        if ">=" in check.condition:
            found.append(ratio)
        elif "<=" in check.condition:
            found.append(-ratio)
        else:
            found.append(math.log(ORDER_ONE) - abs(ratio))
    return min(found)


def overlay(
    plane: Plane, xs: Sequence[float], ys: Sequence[float], modality: str
) -> tuple[Floats, Floats]:
    """`log_t1_ratio` and `margin` at each place, each [ys, xs]; borders are where they are 0."""
    places = [[plane.at(x, y) for x in xs] for y in ys]
    ratios = [[log_t1_ratio(point, modality) for point in row] for row in places]
    margins = [[margin(point, modality) for point in row] for row in places]
    return np.array(ratios), np.array(margins)


__all__ = ["PLANES", "Plane", "Range", "conditions", "log_t1_ratio", "margin", "overlay"]

"""Planes of the phase diagrams, and what the theory draws on them.

Between the cells of a plane the growth rate and the initial scale of the noise stay fixed
(`experiments.scaling`), so a cell differs from the next in what its axes say and in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.phase_names import PlaneName
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.theory import Check, assumption_4_1, t1_multi, t1_single

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
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
        found = np.geomspace(self.low, self.high, points).tolist()
        if self.name in ("n", "d", "m"):
            return [float(v) for v in dict.fromkeys(round(v) for v in found)]
        return found


@dataclass(frozen=True)
class Plane:
    """Two axes and what is fixed."""

    x: Range
    y: Range
    base: Scaled = BASE

    def point(self, x: float, y: float) -> Scaled:
        """The settings of a cell."""
        given = {self.x.name: x, self.y.name: y}
        changes: dict[str, Any] = {k: v for k, v in given.items() if k != "snr"}
        changes |= {k: round(v) for k, v in changes.items() if k in ("n", "d", "m")}
        point = replace(self.base, **changes)
        return replace(point, n_snr2=point.n * given["snr"] ** 2) if "snr" in given else point


PLANES: MappingProxyType[PlaneName, Plane] = MappingProxyType(
    {
        "n-snr": Plane(Range("n", 16, 512), Range("snr", 0.03, 0.8)),
        "cmu-nsnr2": Plane(Range("c_mu", 0.25, 8), Range("n_snr2", 0.1, 10)),
        "d": Plane(Range("d", 200, 1e9), Range("n_snr2", 0.1, 10)),
        "m": Plane(Range("m", 2, 512), Range("n_snr2", 0.1, 10)),
    }
)


def log_t1_ratio(cfg: TrainConfig, modality: str) -> float:
    """log of T1 of the noise (Lemma 5.2) over T1 of the signal (Lemma 5.4); > 0: signal is first.

    Single-modal training is Lemma 5.4's rate with C_mu = 1: its signal meets only itself.
    """
    shared = {"sigma_0": cfg.sigma_0, "eta": cfg.eta, "m": cfg.m, "tau": cfg.tau_value}
    noise = t1_single(sigma_xi=cfg.sigma_xi, d=cfg.d, n=cfg.n, **shared)
    c_mu = cfg.mu_b_norm / cfg.mu_norm if modality == "multi" else 1.0
    return math.log(noise / t1_multi(mu_norm=cfg.mu_norm, c_mu=c_mu, **shared))


def conditions(cfg: TrainConfig, modality: str) -> list[Check]:
    """Assumption 4.1 at a cell; what it asks of modality B only where there is one."""
    found = assumption_4_1(
        n=cfg.n,
        d=cfg.d,
        m=cfg.m,
        eta=cfg.eta,
        sigma_0=cfg.sigma_0,
        sigma_xi=cfg.sigma_xi,
        sigma_eps=cfg.sigma_eps,
        mu_norm=cfg.mu_norm,
        mu_b_norm=cfg.mu_b_norm,
    )
    return [c for c in found if modality == "multi" or not c.condition.startswith("C_mu")]


def overlay(
    plane: Plane, xs: Sequence[float], ys: Sequence[float], modality: str
) -> tuple[Floats, Booleans]:
    """`log_t1_ratio` and whether Assumption 4.1 holds at each cell, each [ys, xs]."""
    cells = [[plane.point(x, y).config() for x in xs] for y in ys]
    ratios = [[log_t1_ratio(cfg, modality) for cfg in row] for row in cells]
    holds = [[all(c.holds for c in conditions(cfg, modality)) for cfg in row] for row in cells]
    return np.array(ratios), np.array(holds)


__all__ = ["PLANES", "Plane", "Range", "conditions", "log_t1_ratio", "overlay"]

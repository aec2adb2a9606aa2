"""The theory's predictions on a plane of the paper's model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmcl_fast.experiments import borders
from mmcl_fast.experiments.borders import TheoryPoint
from mmcl_fast.experiments.phase.planes import Plane
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.theory import Check

Floats = npt.NDArray[np.float64]
SIGMA_XI = 1.0


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
        sigma_eps=point.sigma_eps,
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


__all__ = ["conditions", "log_t1_ratio", "margin", "overlay", "window"]

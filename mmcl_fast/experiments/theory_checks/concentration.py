"""Concentration of data and initial weights, on which every proof rests (appendix B).

The bounds are written as Cao et al. (Benign Overfitting in Two-layer Convolutional Neural Networks,
NeurIPS 2022) and Kou et al. (ICML 2023) state them for this model, each with probability 1 - delta
at sizes that are large enough. No training.

Criterion. Agrees if, with delta = 0.01, no entry of any run at any d is outside of its bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.experiments.theory_checks.check import (
    Finding,
    Floats,
    Panel,
    Row,
    Series,
    measured_series,
)

SOURCE = "Lemmas B.1 to B.5"
STATEMENTS = {
    "noise norms": "|xi_i|^2 is within sigma_xi^2 d / 2 .. 3 sigma_xi^2 d / 2",
    "noise overlaps": "|<xi_i, xi_j>| <= 2 sigma_xi^2 sqrt(d log(6 n^2 / delta))",
    "noise and signal": "|<xi_i, mu>| <= |mu| sigma_xi sqrt(2 log(6 n / delta))",
    "weights and signal": "|<w_r(0), mu>| <= sqrt(2 log(12 m / delta)) sigma_0 |mu|",
    "weights and noise": "|<w_r(0), xi_i>| <= 2 sqrt(log(12 m n / delta)) sigma_0 sigma_xi sqrt(d)",
    "most aligned with signal": "max_r <w_r(0), mu> >= sigma_0 |mu| / 2",
    "most aligned with noise": "max_r <w_r(0), xi_i> >= sigma_0 sigma_xi sqrt(d) / 4 for every i",
    "labels": "both labels have n / 2 samples within sqrt(n log(4 / delta) / 2)",
    "active neurons": "each xi_i activates m / 2 neurons within sqrt(m log(2 n / delta) / 2)",
}
"""The bounds by the name of their curve."""


@dataclass(frozen=True)
class ConcentrationGrid:
    """Settings to draw."""

    n: int = 100
    m: int = 50
    d: tuple[int, ...] = (2000, 10**6, 10**9, 10**12, 10**15)
    delta: float = 0.01


def check(seeds: Sequence[int], grid: ConcentrationGrid | None = None) -> Finding:
    """Draw data over d and compare them with the bounds.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to draw.
    """
    grid = grid or ConcentrationGrid()
    drawn = [
        [shares(Scaled(n=grid.n, d=d, m=grid.m).config(seed=s), grid.delta) for s in seeds]
        for d in grid.d
    ]
    found = {name: np.array([[run[name] for run in runs] for runs in drawn]) for name in STATEMENTS}
    panel = Panel(
        title="Concentration at the start",
        fixed=rf"$n$ = {grid.n}, $\delta$ = {grid.delta}",
        xlabel="$d$, dimension",
        ylabel="share of the bound",
        series=(
            *(
                measured_series(name, "single", grid.d, found[name])
                for name in ("noise norms", "noise overlaps", "weights and noise")
            ),
            Series(label="the bound", modality=None, x=(grid.d[0], grid.d[-1]), mean=(1.0, 1.0)),
        ),
        log_x=True,
        legend=(0.45, 0.62),
    )
    rows = tuple(judge(name, values, grid) for name, values in found.items())
    return Finding(name="concentration", rows=rows, panel=panel, settings=asdict(grid))


def judge(name: str, values: Floats, grid: ConcentrationGrid) -> Row:
    """The row of a bound: `values` is the largest share of it that is used, [d, seeds]."""
    return Row(
        statement=STATEMENTS[name],
        source=SOURCE,
        predicted="<= 1",
        quantity=f"largest share of the bound, d = {grid.d[0]:g} .. {grid.d[-1]:g}",
        per_seed=tuple(values.max(0).tolist()),
        criterion=f"at most 1 in every run, delta = {grid.delta}",
        agrees=bool(values.max() <= 1),
    )


def shares(cfg: TrainConfig, delta: float) -> dict[str, float]:
    """Largest share of every bound that modality A's data use, by its name; above 1: broken.

    Args:
        cfg: Settings of the data and the initial weights.
        delta: Failure probability, in (0, 1).
    """
    data = sample(cfg)
    assert data.noise is not None
    noise, mu, weights = (x.double() for x in (data.noise, data.mu, data.weights))
    n, m, d = cfg.n, cfg.m, cfg.d
    sigma, signal = cfg.sigma_xi, cfg.mu_norm
    gram, aligned, activations = noise @ noise.T, weights @ mu, weights @ noise.T
    level = cfg.sigma_0 * sigma * math.sqrt(d)
    off_diagonal = gram - gram.diagonal().diag()
    plus = int((data.labels > 0).sum())
    active = (activations > 0).sum(0).double()
    return {
        "noise norms": _most(gram.diagonal() / (sigma**2 * d) - 1) / 0.5,
        "noise overlaps": _most(off_diagonal)
        / (2 * sigma**2 * math.sqrt(d * math.log(6 * n**2 / delta))),
        "noise and signal": _most(noise @ mu)
        / (signal * sigma * math.sqrt(2 * math.log(6 * n / delta))),
        "weights and signal": _most(aligned)
        / (math.sqrt(2 * math.log(12 * m / delta)) * cfg.sigma_0 * signal),
        "weights and noise": _most(activations)
        / (2 * math.sqrt(math.log(12 * m * n / delta)) * level),
        "most aligned with signal": _lower(0.5 * cfg.sigma_0 * signal, aligned.max()),
        "most aligned with noise": _lower(0.25 * level, activations.amax(0).min()),
        "labels": abs(plus - n / 2) / math.sqrt(n * math.log(4 / delta) / 2),
        "active neurons": _most(active - m / 2) / math.sqrt(m * math.log(2 * n / delta) / 2),
    }


def _most(values: Tensor) -> float:
    return float(values.abs().max())


def _lower(bound: float, value: Tensor) -> float:
    """Share of a lower bound that is used: the bound over the value; infinity if it is not > 0."""
    return bound / float(value) if value > 0 else math.inf


__all__ = ["ConcentrationGrid", "check", "judge", "shares"]

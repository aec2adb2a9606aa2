"""Softmax weights in the first stage: within 1 / C .. C of 1 / (M + 1) (Lemmas C.1, C.2, D.1, D.2).

The proofs replace every softmax weight, of the positive and of the negatives, by 1 / (M + 1) up to
a constant C while the coefficients are of order 1. Similarities divided by the temperature are then
sums over m neurons, divided by m tau: of order 1 for a temperature of order 1, of order m for
tau = 1 / m, the reading of Figure 1. The weights are taken at the last epoch at which every
|gamma_r| and |rho_{r,i}| is at most 1/2; C is the largest of weight x (M + 1) and its inverse.

Criterion. Constant: agrees if with a temperature of 1/2 the exponent of C in n is at most 0.1. The
note has C with a temperature of 1 / m; noise grows alike in both, since eta / tau is held fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.experiments.theory_checks.check import (
    Finding,
    Floats,
    Panel,
    Row,
    log_slope,
    measured_series,
    power_of_ten,
)
from mmcl_fast.experiments.theory_checks.first_stage import ORDER_ONE, predicted_t1
from mmcl_fast.training import train
from mmcl_fast.training.run import Run

FLAT = 0.1
SOURCE = {"single": "Lemmas C.1, C.2", "multi": "Lemmas D.1, D.2"}


@dataclass(frozen=True)
class CouplingsGrid:
    """Settings to train; every n also with a temperature of 1 / m."""

    n: tuple[int, ...] = (50, 100, 200, 400)
    tau: float = 0.5
    noise_rate: float = 0.08


def check(seeds: Sequence[int], grid: CouplingsGrid | None = None) -> Finding:
    """Train through the first stage over n, both modalities and temperatures.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train.
    """
    grid = grid or CouplingsGrid()
    rows, series = [], []
    for modality in ("single", "multi"):
        found = {
            tau: np.array(
                [[_constant(_config(grid, n, tau, modality, s)) for s in seeds] for n in grid.n]
            )
            for tau in (grid.tau, None)
        }
        rows.append(judge(grid.n, found[grid.tau], found[None], modality))
        for tau, label in ((None, "$1/m$"), (grid.tau, f"{grid.tau}")):
            series.append(
                measured_series(
                    rf"{modality}, $\tau$ = {label}",
                    modality,
                    grid.n,
                    found[tau],
                    faint=tau is not None,
                )
            )
    panel = Panel(
        title=r"Softmax weights $\times\,(M + 1)$",
        fixed=rf"$d$ = {power_of_ten(Scaled().d)}, coefficients at most 1/2",
        xlabel="$n$, samples",
        ylabel="largest, or inverse of the smallest",
        series=tuple(series),
        log_x=True,
        log_y=True,
    )
    return Finding(name="couplings", rows=tuple(rows), panel=panel, settings=asdict(grid))


def judge(n: Sequence[int], constants: Floats, others: Floats, modality: str) -> Row:
    """The row of a modality: C with a temperature of order 1 and of 1 / m, [n, seeds] each."""
    near, other = (f"{x.mean(1)[0]:.2f} and {x.mean(1)[-1]:.2f}" for x in (constants, others))
    return Row(
        statement=f"{modality}-modal: softmax weights are within 1/C .. C of 1 / (M + 1) while "
        "coefficients are at most 1/2",
        source=SOURCE[modality],
        predicted="exponent 0",
        quantity="exponent of C in n, seed by seed, tau = 1/2",
        per_seed=tuple(log_slope(n, column) for column in constants.T),
        criterion=f"exponent of the means at most {FLAT}",
        agrees=log_slope(n, constants.mean(1)) <= FLAT,
        note=f"C = {near} at n = {n[0]} and {n[-1]}; with tau = 1 / m {other}",
    )


def deviation(run: Run, data: SignalNoiseData, kept: int) -> float:
    """C: largest factor between a softmax weight and 1 / (M + 1).

    Args:
        run: With curves of coefficients.
        data: Its data.
        kept: Index of the kept coefficients.
    """
    cfg, labels = run.config, data.labels
    query = _features(run, data, kept, "", "noise")
    directions: tuple[tuple[Tensor, Tensor, Tensor], ...]
    if cfg.is_multi:
        key = positive = _features(run, data, kept, "_b", "noise_b")
        directions = ((query, key, key), (key, query, query))
    else:
        positive = _features(run, data, kept, "", "augmented")
        directions = ((query, query, positive),)
    return max(
        _weights_over_uniform(*sides, labels=labels, scale=cfg.m * cfg.tau_value)
        for sides in directions
    )


def _weights_over_uniform(
    query: Tensor, key: Tensor, positive: Tensor, *, labels: Tensor, scale: float
) -> float:
    other = labels[:, None] != labels[None, :]
    scores = (query @ key.T / scale).masked_fill(~other, -math.inf)
    own = (query * positive).sum(1, keepdim=True) / scale
    log_weights = torch.log_softmax(torch.cat([own, scores], 1), 1)
    log_uniform = -torch.log1p(other.sum(1, keepdim=True).double())
    distance = (log_weights - log_uniform).masked_fill(log_weights == -math.inf, 0.0)
    return math.exp(float(distance.abs().max()))


def _features(run: Run, data: SignalNoiseData, kept: int, side: str, patches: str) -> Tensor:
    """Activations of both patches, [n, 2 m], float64."""
    mu, noise, weights = (
        getattr(data, name + side).double() for name in ("mu", "noise", "weights")
    )
    gamma, rho = (getattr(run, f"{name}{side}_curve")[kept].double() for name in ("gamma", "rho"))
    weights = weights + gamma[:, None] * mu / mu.square().sum()
    weights = weights + (rho / noise.square().sum(1)) @ noise
    signal = data.labels.double()[:, None] * (weights @ mu)
    return torch.cat([signal, getattr(data, patches).double() @ weights.T], 1).clamp(min=0)


def _constant(cfg: TrainConfig) -> float:
    """C at the last epoch at which every coefficient is at most 1/2."""
    run = train(cfg)
    names = [f"{name}{side}_curve" for name in ("gamma", "rho") for side in ("", "_b")]
    curves = [curve for name in names if (curve := getattr(run, name)) is not None]
    largest = torch.stack([curve.abs().flatten(1).amax(1) for curve in curves]).amax(0)
    small = torch.nonzero(largest <= ORDER_ONE).flatten()
    return deviation(run, sample(cfg), int(small[-1]))


def _config(
    grid: CouplingsGrid, n: int, tau: float | None, modality: str, seed: int
) -> TrainConfig:
    point = Scaled(n=n, noise_rate=grid.noise_rate)
    cfg = point.config(modality=modality, evaluate_every=0, coefficients_every=1, seed=seed)
    if tau is not None:
        cfg = cfg.replace(tau=tau, eta=cfg.eta * tau / cfg.tau_value)
    return cfg.replace(epochs=math.ceil(predicted_t1(cfg)))


__all__ = ["CouplingsGrid", "check", "deviation", "judge"]

"""Training loss against T* of Theorems 4.2(1) and 4.3(1), and the gradient bound behind it.

T* = m n / (eta sigma_xi^2 d) (1 + 1 / eps), up to constants and logarithms, is an upper bound on
the epochs until the training loss is at most eps. With its constant set to 1 it is far above every
run, so its dependence on eps is checked as well: once the loss is small, log T over log(1 / eps)
has a slope of at most 1. The gradient bound of Lemma C.14 is
|grad L|^2 <= O(max(|mu|^2, sigma_xi^2 d)) L.

Criteria. The loss: agrees if no epoch of any run is above the one before by more than 1e-6 of it,
the rounding of float32. By T*: agrees if every run reaches every eps within T*. Exponent: agrees
if the slope between neighbouring eps is at most 1 in every run. Gradient: agrees if
|grad L|^2 / (max(|mu|^2, sigma_xi^2 d) L) is at most 1 at every epoch of every run, up to the last
epoch whose coefficients are kept. The step meets the limit of Proposition C.13.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.experiments.theory_checks.check import (
    Finding,
    Floats,
    Panel,
    Row,
    Series,
    measured_series,
    power_of_ten,
)
from mmcl_fast.experiments.theory_checks.first_stage import epoch_reaching
from mmcl_fast.theory import convergence_time
from mmcl_fast.training import train_many
from mmcl_fast.training.run import Run

ROUNDING = 1e-6
SOURCE = {"single": "Theorem 4.2(1)", "multi": "Theorem 4.3(1)"}


@dataclass(frozen=True)
class ConvergenceGrid:
    """Settings to train; `losses` fall."""

    n: int = 100
    noise_rate: float = 0.08
    epochs: int = 20_000
    losses: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001, 0.0001)
    gradient_epochs: int = 400


def check(seeds: Sequence[int], grid: ConvergenceGrid | None = None) -> Finding:
    """Train until the loss is small, both modalities.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train.
    """
    grid = grid or ConvergenceGrid()
    point = Scaled(n=grid.n, noise_rate=grid.noise_rate)
    rows: list[Row] = []
    series: list[Series] = []
    inverse = tuple(1 / loss for loss in grid.losses)
    for modality in ("single", "multi"):
        cfg = point.config(modality=modality, epochs=grid.epochs, evaluate_every=0)
        curves = np.array([run.loss.double().numpy() for run in _train(cfg, seeds)])
        times = np.array([[epoch_reaching(-c, -eps) for c in curves] for eps in grid.losses])
        limits = np.array([_limit(cfg, eps) for eps in grid.losses])
        rows += [
            never_rises(modality, curves),
            within_limit(modality, grid.losses, times, limits),
            exponent(modality, grid.losses, times),
        ]
        series.append(measured_series(f"{modality}-modal", modality, inverse, times))
    rows.append(gradient_row([gradient_ratio(run) for run in _gradient_runs(point, grid, seeds)]))
    series.append(
        Series(label="slope 1", modality=None, x=inverse[-2:], mean=_slope_one(series, inverse))
    )
    panel = Panel(
        title=r"Epochs until the loss is $\epsilon$",
        fixed=f"$n$ = {grid.n}, $d$ = {power_of_ten(point.d)}, growth rate {grid.noise_rate}",
        xlabel=r"$1/\epsilon$",
        ylabel="epochs",
        series=tuple(series),
        log_x=True,
        log_y=True,
    )
    return Finding(name="convergence", rows=tuple(rows), panel=panel, settings=asdict(grid))


def never_rises(modality: str, curves: Floats) -> Row:
    """The row on monotone losses: `curves` is [seeds, epochs]."""
    rises = (np.diff(curves, axis=1) / curves[:, :-1]).max(1)
    return Row(
        statement=f"{modality}-modal: the training loss never rises",
        source=SOURCE[modality],
        predicted="<= 0",
        quantity="largest relative change of the loss in an epoch",
        per_seed=tuple(rises.tolist()),
        criterion=f"at most {ROUNDING:g} in every run",
        agrees=bool((rises <= ROUNDING).all()),
        note=f"{curves.shape[1] - 1} epochs; final loss {curves[:, -1].mean():.1e}",
    )


def within_limit(modality: str, losses: Sequence[float], times: Floats, limits: Floats) -> Row:
    """The row of T*: `times` is [losses, seeds], `limits` [losses]."""
    ratios = times / limits[:, None]
    return Row(
        statement=f"{modality}-modal: the training loss is at most eps by T*",
        source=SOURCE[modality],
        predicted="<= 1",
        quantity=f"epochs over T*, largest over eps = {losses[0]:g} .. {losses[-1]:g}",
        per_seed=tuple(ratios.max(0).tolist()),
        criterion="at most 1 in every run",
        agrees=bool((ratios <= 1).all()),
        note=f"{times[-1].mean():.0f} epochs to eps = {losses[-1]:g}",
    )


def exponent(modality: str, losses: Sequence[float], times: Floats) -> Row:
    """The row of the epochs' dependence on eps: `times` is [losses, seeds]."""
    steps = np.diff(np.log(1 / np.array(losses)))
    slopes = np.diff(np.log(times), axis=0) / steps[:, None]
    return Row(
        statement=f"{modality}-modal: the epochs grow at most like 1 / eps",
        source=SOURCE[modality],
        predicted="<= 1",
        quantity=f"exponent in 1 / eps between the last two, {losses[-2]:g} and {losses[-1]:g}",
        per_seed=tuple(slopes[-1].tolist()),
        criterion="at most 1 between all neighbours, in every run",
        agrees=bool((slopes <= 1).all()),
        note=", ".join(f"{slope:.2f}" for slope in slopes.mean(1)) + " from the first to the last",
    )


def gradient_row(ratios: Sequence[Floats]) -> Row:
    """The row of Lemma C.14: |grad L|^2 / (max(|mu|^2, sigma_xi^2 d) L) at every epoch of runs."""
    largest = [float(ratio.max()) for ratio in ratios]
    return Row(
        statement="single-modal: |grad L|^2 <= O(max(|mu|^2, sigma_xi^2 d)) L",
        source="Lemma C.14",
        predicted="O(1)",
        quantity="largest |grad L|^2 / (max(|mu|^2, sigma_xi^2 d) L) of a run",
        per_seed=tuple(largest),
        criterion="at most 1 at every epoch of every run",
        agrees=max(largest) <= 1,
        note=f"first {len(ratios[0])} epochs, tau = 1 / m",
    )


def gradient_ratio(run: Run) -> Floats:
    """|grad L|^2 / (max(|mu|^2, sigma_xi^2 d) L) at each epoch but the last, from coefficients.

    mu and the xi_i are taken to be orthogonal, of norms |mu| and sigma_xi sqrt(d): at d = 10^15
    their cosines and the deviations of the norms are about 3e-8.
    """
    cfg = run.config
    assert run.gamma_curve is not None
    assert run.rho_curve is not None
    noise = cfg.sigma_xi**2 * cfg.d
    gamma = run.gamma_curve.double().diff(dim=0).square().sum(1) / cfg.mu_norm**2
    rho = run.rho_curve.double().diff(dim=0).square().sum((1, 2)) / noise
    squared = (gamma + rho).numpy() / cfg.eta**2
    ratio: Floats = squared / (max(cfg.mu_norm**2, noise) * run.loss.double().numpy()[:-1])
    return ratio


def _gradient_runs(point: Scaled, grid: ConvergenceGrid, seeds: Sequence[int]) -> list[Run]:
    cfg = point.config(epochs=grid.gradient_epochs, evaluate_every=0, coefficients_every=1)
    return _train(cfg, seeds)


def _limit(cfg: TrainConfig, loss: float) -> float:
    return convergence_time(
        loss=loss, eta=cfg.eta, sigma_xi=cfg.sigma_xi, d=cfg.d, n=cfg.n, m=cfg.m
    )


def _slope_one(series: Sequence[Series], inverse: Sequence[float]) -> tuple[float, float]:
    """A line of slope 1 through a point above the curves' last but one."""
    level = 2 * max(s.mean[-2] for s in series)
    return level, level * inverse[-1] / inverse[-2] if math.isfinite(level) else level


def _train(cfg: TrainConfig, seeds: Sequence[int]) -> list[Run]:
    return train_many([cfg.replace(seed=s) for s in seeds])


__all__ = [
    "ConvergenceGrid",
    "check",
    "exponent",
    "gradient_ratio",
    "gradient_row",
    "never_rises",
    "within_limit",
]

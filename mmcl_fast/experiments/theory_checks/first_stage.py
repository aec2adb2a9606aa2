"""End of the first stage, T1, of Lemmas 5.2 and 5.4, against the measured epoch.

The lemmas say that at T1 the winner, noise in single-modal and signal in multi-modal training, is
of order 1. "Order 1" is read as 1/2: the measured epoch is the first at which min_i max_r rho_{r,i}
(single) or max_r |gamma_r| (multi) is at least 1/2.

T1 is an upper bound: in its logarithm the guaranteed growth leads to 20, not to 1/2, so that
measured / T1 moves with sigma_0 by construction, and no statement says that it is fixed.

Criterion. Agrees if every run has reached 1/2 at T1, over a grid of growth rates and initial
scales.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.scaling import FIGURE_1_START, Scaled
from mmcl_fast.experiments.theory_checks.check import (
    Finding,
    Floats,
    Panel,
    Row,
    Series,
    measured_series,
    power_of_ten,
)
from mmcl_fast.experiments.theory_checks.growth import LEMMA
from mmcl_fast.theory import t1_multi, t1_single
from mmcl_fast.training import train
from mmcl_fast.training.run import Run

ORDER_ONE = 0.5


@dataclass(frozen=True)
class FirstStageGrid:
    """Settings to train."""

    n: int = 100
    rates: tuple[float, ...] = (0.02, 0.04, 0.08)
    starts: tuple[float, ...] = (FIGURE_1_START, FIGURE_1_START / 10, FIGURE_1_START / 100)


def check(seeds: Sequence[int], grid: FirstStageGrid | None = None) -> Finding:
    """Train over growth rates and initial scales, both modalities.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train.
    """
    grid = grid or FirstStageGrid()
    rows: list[Row] = []
    series: list[Series] = []
    longest = 0.0
    for modality in ("single", "multi"):
        predicted, measured = [], []
        for rate, start in itertools.product(grid.rates, grid.starts):
            cfg = Scaled(n=grid.n, noise_rate=rate, noise_start=start).config(modality=modality)
            t1 = predicted_t1(cfg)
            cfg = cfg.replace(epochs=math.ceil(t1), evaluate_every=0, coefficients_every=1)
            # One run at a time: the coefficients of every epoch are 20 MB a run.
            runs = (train(cfg.replace(seed=s)) for s in seeds)
            predicted.append(t1)
            measured.append([epoch_reaching(winner(run), ORDER_ONE) for run in runs])
        epochs = np.array(measured)
        rows.append(judge(modality, np.array(predicted), epochs))
        order = np.argsort(predicted)
        series.append(
            measured_series(
                f"{modality}-modal",
                modality,
                np.array(predicted)[order].tolist(),
                epochs[order],
                joined=False,  # growth rates and starts in one row
            )
        )
        longest = max(longest, *predicted)
    series.append(
        Series(
            label="$T_1$ (Lemmas 5.2, 5.4)", modality=None, x=(0.0, longest), mean=(0.0, longest)
        )
    )
    panel = Panel(
        title="End of the first stage",
        fixed=(
            rf"$n$ = {grid.n}, $d$ = {power_of_ten(Scaled().d)}; "
            r"a point: one rate and one $\sigma_0$"
        ),
        xlabel="$T_1$ of the lemma, epochs",
        ylabel="first epoch at 1/2",
        series=tuple(series),
    )
    return Finding(name="first_stage", rows=tuple(rows), panel=panel, settings=asdict(grid))


def predicted_t1(cfg: TrainConfig) -> float:
    """T1 of Lemma 5.2 or 5.4 at a run's settings, in epochs."""
    shared = {"sigma_0": cfg.sigma_0, "eta": cfg.eta, "m": cfg.m, "tau": cfg.tau_value}
    if cfg.is_multi:
        return t1_multi(mu_norm=cfg.mu_norm, c_mu=cfg.mu_b_norm / cfg.mu_norm, **shared)
    return t1_single(sigma_xi=cfg.sigma_xi, d=cfg.d, n=cfg.n, **shared)


def winner(run: Run) -> Floats:
    """The curve that the lemma says is of order 1 at T1."""
    assert run.gamma_curve is not None
    assert run.rho_curve is not None
    if run.config.is_multi:
        curve: Floats = run.gamma_curve.abs().amax(1).double().numpy()
        return curve
    curve = run.rho_curve.amax(1).amin(1).double().numpy()
    return curve


def epoch_reaching(curve: Floats, level: float) -> float:
    """First epoch at which a curve is at least a level; infinity if it never is."""
    there = np.flatnonzero(curve >= level)
    return float(there[0]) if len(there) else math.inf


def judge(modality: str, predicted: Floats, measured: Floats) -> Row:
    """The row of one modality.

    Args:
        modality: "single" or "multi".
        predicted: T1 of each setting, [settings].
        measured: Epochs, [settings, seeds].
    """
    ratios = measured / predicted[:, None]
    means = ratios.mean(1)
    what = "max_r rho_{r,i} of every i" if modality == "single" else "max_r |gamma_r|"
    return Row(
        statement=f"{modality}-modal: {what} is of order 1 at T1",
        source=LEMMA[modality],
        predicted="by T1",
        quantity="epoch reaching 1/2, over T1",
        per_seed=tuple(ratios.mean(0).tolist()),
        criterion="at most 1 in every run",
        agrees=bool((ratios <= 1).all()),
        note=f"settings from {means.min():.2f} to {means.max():.2f}, "
        f"latest run at {ratios.max():.2f} T1",
    )


__all__ = ["FirstStageGrid", "check", "epoch_reaching", "judge", "predicted_t1", "winner"]

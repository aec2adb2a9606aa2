"""Where multi-modal learning begins to generalise as C_mu grows (Assumption 4.1: C_mu >= 2.66).

Criteria. Sufficient: agrees if the accuracy at C_mu = 2.66 is within 0.02 of that at the largest
C_mu, at n SNR^2 of Figure 1. Threshold: agrees if accuracy crosses the middle between its smallest
and largest value within 20 % of 2.66 there. Lemmas' balance: the constants of Lemmas 5.2 and 5.4
make signal and noise grow alike at C_mu n SNR^2 = 0.96 / 0.48 = 2; agrees if the crossing times
n SNR^2 is within 20 % of 2 at every n SNR^2 at which accuracy crosses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mmcl_fast.experiments.crossing import first_crossing
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.experiments.theory_checks.check import (
    Finding,
    Floats,
    Panel,
    Row,
    Series,
    measured_series,
    power_of_ten,
    spread,
)
from mmcl_fast.theory import MIN_C_MU, MULTI_RATE, SINGLE_RATE
from mmcl_fast.training import train_many

NEAR_PLATEAU = 0.02
NEAR = 0.2
BALANCE = SINGLE_RATE / MULTI_RATE


@dataclass(frozen=True)
class CMuGrid:
    """Settings to train; the first n SNR^2 is the one of the paper's threshold."""

    n: int = 100
    c_mu: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, MIN_C_MU, 3.5, 5.0, 7.0)
    n_snr2: tuple[float, ...] = (1.25, 0.4, 0.7)
    epochs: int = 200
    n_test: int = 1000


def check(seeds: Sequence[int], grid: CMuGrid | None = None) -> Finding:
    """Train multi-modal runs over C_mu at several n SNR^2.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train.
    """
    grid = grid or CMuGrid()
    accuracies = {n_snr2: _accuracy(grid, n_snr2, seeds) for n_snr2 in grid.n_snr2}
    lines = [
        measured_series(rf"$n\,\mathrm{{SNR}}^2$ = {n_snr2}", "multi", grid.c_mu, values)
        for n_snr2, values in sorted(accuracies.items())
    ]
    lines.append(
        Series(label=r"$C_\mu$ = 2.66", modality=None, x=(MIN_C_MU, MIN_C_MU), mean=(0.5, 1.0)),
    )
    panel = Panel(
        title=r"Threshold of $C_\mu$, multi-modal",
        fixed=f"$n$ = {grid.n}, $d$ = {power_of_ten(Scaled().d)}, {grid.epochs} epochs",
        shares=True,
        chance=0.5,
        log_x=True,
        xlabel=r"$C_\mu$",
        ylabel="OOD accuracy",
        series=tuple(lines),
    )
    rows = judge(grid.c_mu, accuracies)
    return Finding(name="c_mu", rows=rows, panel=panel, settings=asdict(grid))


def judge(c_mu: Sequence[float], accuracies: dict[float, Floats]) -> tuple[Row, ...]:
    """The rows of the check.

    Args:
        c_mu: Rising values, 2.66 among them.
        accuracies: Accuracy [c_mu, seeds] at each n SNR^2.
    """
    n_snr2, accuracy = next(iter(accuracies.items()))
    at = list(c_mu).index(MIN_C_MU)
    gap = accuracy[-1] - accuracy[at]
    crossings = _crossings(c_mu, accuracy)
    middle, _ = spread(crossings)
    balances = {k: spread(_crossings(c_mu, v))[0] * k for k, v in accuracies.items()}
    crossed = {k: v for k, v in balances.items() if math.isfinite(v)}
    return (
        Row(
            statement=f"C_mu >= {MIN_C_MU} suffices for multi-modal learning to generalise",
            source="Assumption 4.1",
            predicted="0",
            quantity=f"accuracy at C_mu = {c_mu[-1]:g} less that at {MIN_C_MU}",
            per_seed=tuple(gap.tolist()),
            criterion=f"at most {NEAR_PLATEAU}, n SNR^2 = {n_snr2}",
            agrees=bool(gap.mean() <= NEAR_PLATEAU),
            note=f"accuracy {accuracy[at].mean():.3f} at {MIN_C_MU}",
        ),
        Row(
            statement=f"the transition is at C_mu = {MIN_C_MU}",
            source="Assumption 4.1, read as a threshold",
            predicted=f"{MIN_C_MU}",
            quantity="C_mu at which accuracy is half-way",
            per_seed=crossings,
            criterion=f"within {NEAR:.0%}, n SNR^2 = {n_snr2}",
            agrees=abs(middle / MIN_C_MU - 1) <= NEAR,
            note=f"half-way at C_mu = {middle:.2f}",
        ),
        Row(
            statement=f"the transition is where signal outgrows noise: C_mu n SNR^2 = {BALANCE:g}",
            source="rates of Lemmas 5.2, 5.4",
            predicted=f"{BALANCE:g}",
            quantity=f"half-way C_mu x n SNR^2, n SNR^2 = {n_snr2}",
            per_seed=tuple(n_snr2 * c for c in crossings),
            criterion=f"within {NEAR:.0%} at every n SNR^2",
            agrees=bool(crossed) and all(abs(v / BALANCE - 1) <= NEAR for v in crossed.values()),
            note="; ".join(f"{v:.2f} at n SNR^2 = {k}" for k, v in balances.items()),
        ),
    )


def _crossings(c_mu: Sequence[float], accuracy: Floats) -> tuple[float, ...]:
    """Half-way C_mu of each seed; the level is half-way between the means' extremes."""
    means = accuracy.mean(1)
    level = 0.5 * float(means.min() + means.max())
    return tuple(first_crossing(c_mu, column, level) for column in accuracy.T)


def _accuracy(grid: CMuGrid, n_snr2: float, seeds: Sequence[int]) -> Floats:
    """Final accuracy, [c_mu, seeds]."""
    rows = []
    for c_mu in grid.c_mu:
        cfg = Scaled(n=grid.n, n_snr2=n_snr2, c_mu=c_mu).config(
            modality="multi",
            epochs=grid.epochs,
            evaluate_every=grid.epochs,
            n_test=grid.n_test,
        )
        runs = train_many([cfg.replace(seed=s) for s in seeds])
        rows.append([float(run.ood_accuracy[-1]) for run in runs])
    return np.array(rows)


__all__ = ["CMuGrid", "check", "judge"]

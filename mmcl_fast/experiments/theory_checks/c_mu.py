"""Where multi-modal learning begins to generalise as C_mu grows, and the window of the proofs.

The proof of Lemma 5.4 asks for n SNR^2 >= 1.7 and C_mu n SNR^2 >= 4.51 (appendix D.1.3), so the
C_mu >= 2.66 of Assumption 4.1 belongs to n SNR^2 = 1.7; that of Lemma 5.2 for n SNR^2 <= 1.8
(C.1.3). Both are sufficient, and no threshold is claimed. Heads are fitted on training embeddings.

Criteria. Window of Lemma 5.4: agrees if the accuracy at its corner, n SNR^2 = 1.7 and C_mu = 2.66,
is within 0.02 of that at the largest C_mu. Sufficient, not necessary: agrees if accuracy is
half-way between its smallest and largest value at C_mu n SNR^2 <= 4.51 at every n SNR^2 at which it
crosses. Lemmas' balance: the constants of Lemmas 5.2 and 5.4 make signal and noise grow alike at
C_mu n SNR^2 = 0.96 / 0.48 = 2; agrees if the crossing times n SNR^2 is within 20 % of 2 at every
n SNR^2 at which accuracy crosses. Window of Lemma 5.2: agrees if the single-modal error at its
edge, n SNR^2 = 1.8, is at least 0.25.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from mmcl_fast.theory import (
    MAX_N_SNR2_SINGLE,
    MIN_C_MU,
    MIN_C_MU_N_SNR2_MULTI,
    MIN_N_SNR2_MULTI,
    MULTI_RATE,
    SINGLE_RATE,
)
from mmcl_fast.training import train_many

NEAR_PLATEAU = 0.02
OF_ORDER_ONE = 0.25
NEAR = 0.2
BALANCE = SINGLE_RATE / MULTI_RATE


@dataclass(frozen=True)
class CMuGrid:
    """Settings to train; the first n SNR^2 is of Lemma 5.4's window, the next Figure 1's.

    The last two are of single-modal runs: the edge of Lemma 5.2's window, and Figure 1's.
    """

    n: int = 100
    c_mu: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, MIN_C_MU, 3.5, 5.0, 7.0)
    n_snr2: tuple[float, ...] = (MIN_N_SNR2_MULTI, 1.25, 0.7, 0.4)
    epochs: int = 200
    n_test: int = 1000
    single_n_snr2: tuple[float, ...] = (MAX_N_SNR2_SINGLE, 1.25)


def check(seeds: Sequence[int], grid: CMuGrid | None = None) -> Finding:
    """Train multi-modal runs over C_mu at several n SNR^2, and single-modal ones.

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
        Series(
            label=r"$C_\mu$ = 2.66",
            modality=None,
            x=(MIN_C_MU, MIN_C_MU),
            mean=(0.5, 1.0),
        ),
    )
    panel = Panel(
        title=r"Accuracy over $C_\mu$, multi-modal",
        fixed=f"$n$ = {grid.n}, $d$ = {power_of_ten(Scaled().d)}, {grid.epochs} epochs; "
        rf"2.66 is asked at $n\,\mathrm{{SNR}}^2$ = {MIN_N_SNR2_MULTI}",
        shares=True,
        chance=0.5,
        log_x=True,
        xlabel=r"$C_\mu$",
        ylabel="OOD accuracy",
        series=tuple(lines),
    )
    errors = {k: _errors(grid, k, seeds) for k in grid.single_n_snr2}
    rows = (*judge(grid.c_mu, accuracies), judge_single(errors))
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
    balances = {k: spread(_crossings(c_mu, v))[0] * k for k, v in accuracies.items()}
    crossed = {k: v for k, v in balances.items() if math.isfinite(v)}
    quantity = f"half-way C_mu x n SNR^2, n SNR^2 = {n_snr2}"
    per_seed = tuple(n_snr2 * c for c in crossings)
    note = "; ".join(f"{v:.2f} at n SNR^2 = {k}" for k, v in balances.items())
    return (
        Row(
            statement=f"C_mu >= {MIN_C_MU} suffices for multi-modal learning to generalise at "
            f"n SNR^2 = {n_snr2}, the corner of Lemma 5.4's window",
            source="Assumption 4.1, proof of Lemma 5.4",
            predicted="0",
            quantity=f"accuracy at C_mu = {c_mu[-1]:g} less that at {MIN_C_MU}",
            per_seed=tuple(gap.tolist()),
            criterion=f"at most {NEAR_PLATEAU}",
            agrees=bool(gap.mean() <= NEAR_PLATEAU),
            note=f"accuracy {accuracy[at].mean():.3f} at {MIN_C_MU}",
        ),
        Row(
            statement=f"C_mu n SNR^2 >= {MIN_C_MU_N_SNR2_MULTI} suffices, so the transition is not "
            "above it",
            source="proof of Lemma 5.4",
            predicted=f"<= {MIN_C_MU_N_SNR2_MULTI}",
            quantity=quantity,
            per_seed=per_seed,
            criterion="at most that at every n SNR^2",
            agrees=bool(crossed) and max(crossed.values()) <= MIN_C_MU_N_SNR2_MULTI,
            note=note,
        ),
        Row(
            statement=f"the transition is where signal outgrows noise: C_mu n SNR^2 = {BALANCE:g}",
            source="rates of Lemmas 5.2, 5.4",
            predicted=f"{BALANCE:g}",
            quantity=quantity,
            per_seed=per_seed,
            criterion=f"within {NEAR:.0%} at every n SNR^2",
            agrees=bool(crossed) and all(abs(v / BALANCE - 1) <= NEAR for v in crossed.values()),
            note=note,
        ),
    )


def judge_single(errors: Mapping[float, Sequence[float]]) -> Row:
    """The row of Lemma 5.2's window: errors of each seed at each n SNR^2, its edge first."""
    edge, per_seed = next(iter(errors.items()))
    return Row(
        statement=f"single-modal: test error is Theta(1) up to n SNR^2 = {edge}, the edge of "
        "Lemma 5.2's window (head on training embeddings)",
        source="Theorem 4.2, proof of Lemma 5.2",
        predicted="of order 1",
        quantity=f"error at n SNR^2 = {edge}",
        per_seed=tuple(per_seed),
        criterion=f"at least {OF_ORDER_ONE}",
        agrees=spread(per_seed)[0] >= OF_ORDER_ONE,
        note="; ".join(f"{spread(v)[0]:.3f} at n SNR^2 = {k}" for k, v in errors.items()),
    )


def _crossings(c_mu: Sequence[float], accuracy: Floats) -> tuple[float, ...]:
    """Half-way C_mu of each seed; the level is half-way between the means' extremes."""
    means = accuracy.mean(1)
    level = 0.5 * float(means.min() + means.max())
    return tuple(first_crossing(c_mu, column, level) for column in accuracy.T)


def _accuracy(grid: CMuGrid, n_snr2: float, seeds: Sequence[int]) -> Floats:
    """Final accuracy of multi-modal runs, [c_mu, seeds]."""
    points = [Scaled(n=grid.n, n_snr2=n_snr2, c_mu=c_mu) for c_mu in grid.c_mu]
    return np.array([_final(grid, point, "multi", seeds) for point in points])


def _errors(grid: CMuGrid, n_snr2: float, seeds: Sequence[int]) -> list[float]:
    """Final error of single-modal runs."""
    return [1 - x for x in _final(grid, Scaled(n=grid.n, n_snr2=n_snr2), "single", seeds)]


def _final(grid: CMuGrid, point: Scaled, modality: str, seeds: Sequence[int]) -> list[float]:
    cfg = point.config(
        modality=modality,
        epochs=grid.epochs,
        evaluate_every=grid.epochs,
        n_test=grid.n_test,
    )
    runs = train_many([cfg.replace(seed=s) for s in seeds])
    return [float(run.ood_accuracy[-1]) for run in runs]


__all__ = ["CMuGrid", "check", "judge", "judge_single"]

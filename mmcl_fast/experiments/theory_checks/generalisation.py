"""OOD test error as d grows with n SNR^2 fixed (Theorems 4.2 and 4.3).

Figure 1 has |nu| = 0.4 |mu|, and this ratio is fixed; d grows with n^2 / d fixed, the edge of
Assumption 4.1, and separately at n fixed. The order that the paper gives for the test signal,
<nu, mu> ~ |mu|^2 / sqrt(d), is a third interpretation.

Criteria. o(1): agrees if the mean error falls or stays at each step to a larger d and is at most
0.01 at the largest. Theta(1): agrees if the error at the largest d is at least 0.25 and at least
0.8 times that at the smallest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.experiments.theory_checks.check import (
    Finding,
    Floats,
    Panel,
    Row,
    Series,
    measured_series,
)
from mmcl_fast.training import train_many

VANISHED = 0.01
OF_ORDER_ONE = 0.25
KEPT = 0.8
FIGURE_1_SHARE = 0.4


@dataclass(frozen=True)
class GeneralisationGrid:
    """Settings to train: n^2 / d as in Figure 1 for the growing n."""

    d: tuple[int, ...] = (2000, 8000, 32_000, 128_000)
    n2_over_d: float = 5.0
    fixed_n: int = 100
    fixed_n_d: tuple[int, ...] = (2000, 10**4, 10**5, 10**6, 10**9)
    epochs: int = 200
    n_test: int = 1000


def check(seeds: Sequence[int], grid: GeneralisationGrid | None = None) -> Finding:
    """Train both modalities over d under the three interpretations.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train.
    """
    grid = grid or GeneralisationGrid()

    def growing(d: int) -> int:
        return round(math.sqrt(grid.n2_over_d * d))

    def fixed(d: int) -> int:
        return grid.fixed_n

    fixed_share, weak = f"|nu| = {FIGURE_1_SHARE} |mu|", "<nu, mu> = |mu|^2 / sqrt(d)"
    interpretations: list[tuple[str, Sequence[int], Callable[[int], int], bool]] = [
        (f"n^2 / d fixed, {fixed_share}", grid.d, growing, False),
        (f"n = {grid.fixed_n}, {fixed_share}", grid.fixed_n_d, fixed, False),
        (f"n^2 / d fixed, {weak}", grid.d, growing, True),
    ]
    rows: list[Row] = []
    series: list[Series] = []
    for k, (interpretation, dimensions, samples, is_weak) in enumerate(interpretations):
        for modality in ("single", "multi"):
            errors = np.array(
                [_errors(grid, (samples(d), d), modality, seeds, weak=is_weak) for d in dimensions]
            )
            rows.append(judge(interpretation, modality, dimensions, errors))
            if k < 2:
                label = ("$n^2/d$ fixed, " if k == 0 else f"$n$ = {grid.fixed_n}, ") + modality
                series.append(measured_series(label, modality, dimensions, errors, faint=k > 0))
    panel = Panel(
        title="OOD test error",
        fixed=rf"$n\,\mathrm{{SNR}}^2$ = 1.25, $\|\nu\|$ = 0.4 $\|\mu\|$, {grid.epochs} epochs",
        shares=True,
        chance=0.5,
        xlabel="$d$, dimension",
        ylabel="1 $-$ OOD accuracy",
        series=tuple(series),
        log_x=True,
    )
    return Finding(name="test_error", rows=tuple(rows), panel=panel, settings=asdict(grid))


def judge(interpretation: str, modality: str, d: Sequence[int], errors: Floats) -> Row:
    """The row of one interpretation and modality; errors are [d, seeds]."""
    means = errors.mean(1)
    if modality == "single":
        claim, source, predicted = "Theta(1)", "Theorem 4.2", "stays"
        criterion = f"at least {OF_ORDER_ONE}, and {KEPT} x that at the smallest d"
        agrees = means[-1] >= max(OF_ORDER_ONE, KEPT * means[0])
    else:
        claim, source, predicted = "o(1)", "Theorem 4.3", "0"
        criterion = f"falls with d, at most {VANISHED} at the largest"
        agrees = bool((np.diff(means) <= 0).all()) and means[-1] <= VANISHED
    return Row(
        statement=f"{modality}-modal: test error is {claim} ({interpretation})",
        source=source,
        predicted=predicted,
        quantity=f"error at d = {d[-1]:g}",
        per_seed=tuple(errors[-1].tolist()),
        criterion=criterion,
        agrees=bool(agrees),
        note="; ".join(f"{mean:.3f} at d = {at:g}" for at, mean in zip(d, means, strict=True)),
    )


def _errors(
    grid: GeneralisationGrid,
    shape: tuple[int, int],
    modality: str,
    seeds: Sequence[int],
    *,
    weak: bool,
) -> list[float]:
    n, d = shape
    share = 1 / math.sqrt(d) if weak else FIGURE_1_SHARE
    cfg = Scaled(n=n, d=d, nu_share=share).config(
        modality=modality, epochs=grid.epochs, evaluate_every=grid.epochs, n_test=grid.n_test
    )
    runs = train_many([cfg.replace(seed=s) for s in seeds])
    return [1.0 - float(run.ood_accuracy[-1]) for run in runs]


__all__ = ["GeneralisationGrid", "check", "judge"]

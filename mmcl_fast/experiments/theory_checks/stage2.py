"""The second stage: coefficients from T1 on (Lemmas C.3, C.18, D.15, Proposition C.13).

Lemma C.18 says gamma <= 3 beta to the end of single-modal training. beta is read as the largest
|gamma_r| at T1, so the lemma says that the signal keeps the order that it has there; the note has
the largest initial pre-activation as well, another reading. Lemma D.15 says
max_{r,i} |rho_{r,i}| <= sigma_0 sigma_xi sqrt(d) to the end of multi-modal training. But the growth
of Lemma D.9 makes rho larger than this bound, its own starting level, before the second stage
begins (check `scale`), and nothing makes it smaller.

Criteria. C.18: agrees if at every sigma_0 and in every run max_r |gamma_r| at the end is at most
3 times that at T1. D.15: agrees if at every sigma_0 and in every run it holds at the end. Kept
difference, of the winner over the loser of the first stage (min_i max_r rho_{r,i} over
max_r |gamma_r| in single-modal training, max_r |gamma_r| over max_{r,i} |rho_{r,i}| in
multi-modal): agrees if no ratio at the end is below 0.9 times that at T1. C.3, gamma is monotone:
agrees if no |gamma_r| of single-modal training falls by more than 1e-5 of itself between two kept
epochs. C.13, coefficients of order log t: agrees if in every run the largest coefficient over
log t is not larger at the end than at T1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

import numpy as np

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
from mmcl_fast.experiments.theory_checks.first_stage import predicted_t1
from mmcl_fast.experiments.theory_checks.start import start_of
from mmcl_fast.training import train
from mmcl_fast.training.run import Run

STAYS = 3.0
KEPT = 0.9
ROUNDING = 1e-5


@dataclass(frozen=True)
class Stage2Grid:
    """Settings to train; `every` is the number of epochs between kept coefficients."""

    n: int = 100
    noise_rate: float = 0.08
    starts: tuple[float, ...] = (FIGURE_1_START, FIGURE_1_START / 100)
    epochs: int = 20_000
    every: int = 100


@dataclass(frozen=True)
class Late:
    """Coefficients of one run at T1 and at the end.

    Attributes:
        gamma: max_r |gamma_r| at T1 and at the end.
        rho: max_{r,i} |rho_{r,i}| likewise.
        slowest: min_i max_r rho_{r,i} likewise.
        log_t: log of the epochs T1 and the last.
        initial: Largest initial pre-activation.
        bound: sigma_0 sigma_xi sqrt(d).
        falls: Largest relative fall of a |gamma_r| between two kept epochs, >= 0.
        rho_curve: max_{r,i} |rho_{r,i}| at the kept epochs after the first.
    """

    gamma: tuple[float, float]
    rho: tuple[float, float]
    slowest: tuple[float, float]
    log_t: tuple[float, float]
    initial: float
    bound: float
    falls: float
    rho_curve: Floats


def check(seeds: Sequence[int], grid: Stage2Grid | None = None) -> Finding:
    """Train far beyond T1, both modalities.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train.
    """
    grid = grid or Stage2Grid()
    found = {
        modality: [[_late(grid, modality, start, seed) for seed in seeds] for start in grid.starts]
        for modality in ("single", "multi")
    }
    panel = _panel(found["multi"], grid)
    return Finding(name="stage2", rows=judge(found, grid), panel=panel, settings=asdict(grid))


def judge(found: dict[str, list[list[Late]]], grid: Stage2Grid) -> tuple[Row, ...]:
    """The rows of the check: runs [starts][seeds] by modality."""
    single, multi = found["single"], found["multi"]
    return (
        _signal_stays(single, grid),
        _monotone(single),
        _noise_stays(multi, grid),
        _difference(single, "single", grid),
        _difference(multi, "multi", grid),
        _logarithmic(single, "single"),
        _logarithmic(multi, "multi"),
    )


def summarise(run: Run, t1: float) -> Late:
    """The coefficients of a run that keeps them every few epochs.

    Args:
        run: With curves of gamma and rho.
        t1: End of the first stage, epochs.
    """
    assert run.gamma_curve is not None
    assert run.rho_curve is not None
    cfg = run.config
    gamma = run.gamma_curve.abs().double()
    rho = run.rho_curve.abs().amax((1, 2)).double().numpy()
    slowest = run.rho_curve.amax(1).amin(1).double().numpy()
    first = int(np.searchsorted(run.coefficient_epochs, t1))
    largest = gamma.amax(1).numpy()
    falls = (-gamma.diff(dim=0) / gamma[1:]).clamp(min=0)

    def ends(curve: Floats) -> tuple[float, float]:
        return float(curve[first]), float(curve[-1])

    return Late(
        gamma=ends(largest),
        rho=ends(rho),
        slowest=ends(slowest),
        log_t=(math.log(run.coefficient_epochs[first]), math.log(run.coefficient_epochs[-1])),
        initial=start_of(cfg).largest,
        bound=cfg.sigma_0 * cfg.sigma_xi * math.sqrt(cfg.d),
        falls=float(falls.max()),
        rho_curve=rho[1:],
    )


def _late(grid: Stage2Grid, modality: str, start: float, seed: int) -> Late:
    point = Scaled(n=grid.n, noise_rate=grid.noise_rate, noise_start=start)
    cfg = point.config(modality=modality, epochs=grid.epochs, evaluate_every=0, seed=seed)
    return summarise(train(cfg.replace(coefficients_every=grid.every)), predicted_t1(cfg))


def _signal_stays(found: Sequence[Sequence[Late]], grid: Stage2Grid) -> Row:
    ratios = _array(found, lambda late: late.gamma[1] / late.gamma[0])
    of_initial = _array(found, lambda late: late.gamma[1] / late.initial)
    return Row(
        statement="single-modal: max_r |gamma_r| <= 3 beta in the second stage, beta its value "
        "at T1",
        source="Lemma C.18",
        predicted="<= 3",
        quantity=f"value after {grid.epochs:,} epochs over that at T1, Figure 1's sigma_0",
        per_seed=tuple(ratios[0].tolist()),
        criterion=f"at most {STAYS:g} in every run, at every sigma_0",
        agrees=bool(ratios.max() <= STAYS),
        note=f"{_by_start(ratios, grid)}; over the largest initial pre-activation: "
        f"{_by_start(of_initial, grid)}",
    )


def _monotone(found: Sequence[Sequence[Late]]) -> Row:
    falls = _array(found, lambda late: late.falls)
    return Row(
        statement="single-modal: |gamma_r| of every neuron grows throughout",
        source="Lemma C.3",
        predicted="0",
        quantity="largest relative fall between kept epochs, Figure 1's sigma_0",
        per_seed=tuple(falls[0].tolist()),
        criterion=f"at most {ROUNDING:g} in every run, at every sigma_0",
        agrees=bool(falls.max() <= ROUNDING),
        note=f"largest of all runs {falls.max():.2g}",
    )


def _noise_stays(found: Sequence[Sequence[Late]], grid: Stage2Grid) -> Row:
    ratios = _array(found, lambda late: late.rho[1] / late.bound)
    at_t1 = _array(found, lambda late: late.rho[0] / late.bound)
    return Row(
        statement="multi-modal: max_{r,i} |rho_{r,i}| <= sigma_0 sigma_xi sqrt(d) in the second "
        "stage",
        source="Lemma D.15",
        predicted="<= 1",
        quantity=f"value after {grid.epochs:,} epochs over this bound, Figure 1's sigma_0",
        per_seed=tuple(ratios[0].tolist()),
        criterion="at most 1 in every run, at every sigma_0",
        agrees=bool(ratios.max() <= 1),
        note=f"{_by_start(ratios, grid)}; already at T1: {_by_start(at_t1, grid)}",
    )


def _difference(found: Sequence[Sequence[Late]], modality: str, grid: Stage2Grid) -> Row:
    single = modality == "single"
    gamma, rho, slowest = (_array(found, attrgetter(name)) for name in ("gamma", "rho", "slowest"))
    ratios = np.moveaxis(slowest / gamma if single else gamma / rho, -1, 0)  # at T1, at the end
    change = ratios[1] / ratios[0]
    names = ("min_i max_r rho_{r,i}", "max_r |gamma_r|")
    above, below = names if single else (names[1], "max_{r,i} |rho_{r,i}|")
    return Row(
        statement=f"{modality}-modal: {above} over {below} stays to the end",
        source="section 5.1" if single else "section 5.2",
        predicted=">= 1",
        quantity="this ratio at the end over that at T1, Figure 1's sigma_0",
        per_seed=tuple(change[0].tolist()),
        criterion=f"at least {KEPT} in every run, at every sigma_0",
        agrees=bool(change.min() >= KEPT),
        note=f"at the end {_by_start(ratios[1], grid)}",
    )


def _logarithmic(found: Sequence[Sequence[Late]], modality: str) -> Row:
    gamma, rho, log_t = (_array(found, attrgetter(name)) for name in ("gamma", "rho", "log_t"))
    values = np.moveaxis(np.maximum(gamma, rho) / log_t, -1, 0)  # at T1, at the end
    return Row(
        statement=f"{modality}-modal: coefficients are of order log t",
        source="Proposition C.13" if modality == "single" else "its analogue in appendix D",
        predicted="does not grow",
        quantity="largest coefficient over log t at the end, Figure 1's sigma_0",
        per_seed=tuple(values[1][0].tolist()),
        criterion="at most the value at T1 in every run, at every sigma_0",
        agrees=bool((values[1] <= values[0]).all()),
        note=f"{values[0][0].mean():.2f} at T1",
    )


def _array(found: Sequence[Sequence[Late]], quantity: Callable[[Late], Any]) -> Floats:
    """A quantity of every run, [starts, seeds], or [starts, seeds, 2] of a pair."""
    return np.array([[quantity(late) for late in runs] for runs in found])


def _by_start(values: Floats, grid: Stage2Grid) -> str:
    falls = (f"{grid.starts[0] / start:,.0f}" for start in grid.starts)
    means = ", ".join(f"{mean:.3g}" for mean in values.mean(1))
    return f"{means} at Figure 1's sigma_0 / {', '.join(falls)}"


def _panel(found: Sequence[Sequence[Late]], grid: Stage2Grid) -> Panel:
    kept = np.arange(grid.every, grid.epochs + 1, grid.every)
    chosen = np.unique(np.geomspace(1, len(kept), 12).astype(int)) - 1
    series = []
    for index, (start, runs) in enumerate(zip(grid.starts, found, strict=True)):
        over = f" / {grid.starts[0] / start:,.0f}" * bool(index)
        curves = np.array([late.rho_curve for late in runs]).T
        series.append(
            measured_series(
                rf"$\sigma_0$ of Figure 1{over}",
                "multi",
                kept[chosen].tolist(),
                curves[chosen],
                faint=bool(index),
            )
        )
    ends = (float(kept[0]), float(kept[-1]))
    for index, start in enumerate(grid.starts):
        over = f" / {grid.starts[0] / start:,.0f}" * bool(index)
        label = r"$\sigma_0\sigma_\xi\sqrt{d}$ (D.15)" + over
        series.append(Series(label=label, modality=None, x=ends, mean=(start, start)))
    return Panel(
        title=r"$\rho$ in the second stage, multi-modal",
        fixed=f"$n$ = {grid.n}, $d$ = {power_of_ten(Scaled().d)}",
        xlabel="epoch",
        ylabel=r"$\max_{r,i}|\rho_{r,i}|$",
        series=tuple(series),
        log_x=True,
        log_y=True,
        legend=(0.3, 0.17),
    )


__all__ = ["Late", "Stage2Grid", "check", "judge", "summarise"]

"""Growth factors of signal and noise in the first stage (Lemmas 5.1 to 5.4).

gamma and rho start at 0 and grow like a (g^t - 1), so their increments are a (g - 1) g^t: a
straight line in logarithms, whose slope gives g. The constant is (g - 1) over the theory's rate,
eta sigma_xi^2 d / (n m tau) for noise and C_mu eta |mu|^2 / (m tau) for signal. The window ends
where the loss has fallen by a tenth, as the theory takes the softmax weights of the first stage to
be those of the start; it begins after a third of that, when decaying modes have gone.

Criteria. A lemma's constant enters T1 as a lower bound: agrees if the mean is not below it by more
than two standard errors. A rate "of order": agrees if every setting's constant is within 0.25 .. 1
and the largest is at most 1.5 times the smallest. Which grows faster: agrees if it does in
every run of the setting of Figure 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

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
    spread,
)
from mmcl_fast.theory import MULTI_RATE, SINGLE_RATE, noise_growth, signal_growth
from mmcl_fast.training import train_many
from mmcl_fast.training.run import Run

FALLEN = 0.9
ORDER_ONE = (0.25, 1.0)
STEADY = 1.5
LEMMA = {"single": "Lemma 5.2", "multi": "Lemma 5.4"}


@dataclass(frozen=True)
class GrowthGrid:
    """Settings to train."""

    n: int = 100
    rates: tuple[float, ...] = (0.05, 0.1, 0.2)
    starts: tuple[float, ...] = (FIGURE_1_START, FIGURE_1_START / 10)
    n_snr2: float = 1.25
    c_mu: float = 3.0


def check(seeds: Sequence[int], grid: GrowthGrid | None = None) -> Finding:
    """Fit the four growth constants over rates and starts.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train; default: Figure 1's setting and slower ones.
    """
    grid = grid or GrowthGrid()
    pairs = list(itertools.product(grid.starts, grid.rates))
    # [settings, seeds] for each modality and quantity
    constants: dict[tuple[str, str], Floats] = {}
    for modality in ("single", "multi"):
        values = [_constants(grid, start, rate, modality, seeds) for start, rate in pairs]
        constants[modality, "signal"] = np.array([[v[0] for v in row] for row in values])
        constants[modality, "noise"] = np.array([[v[1] for v in row] for row in values])
    rows = judge(constants, grid)
    return Finding(name="growth", rows=rows, panel=_panel(constants, grid), settings=asdict(grid))


def judge(constants: dict[tuple[str, str], Floats], grid: GrowthGrid) -> tuple[Row, ...]:
    """The rows of the check.

    Args:
        constants: Constants [starts x rates, seeds] by modality and quantity ("signal", "noise").
        grid: Settings of the runs.
    """
    return (
        _bound(constants["single", "noise"], SINGLE_RATE, "single", "noise", grid),
        _bound(constants["multi", "signal"], MULTI_RATE, "multi", "signal", grid),
        _order(constants["single", "signal"], "single", "signal", "Lemma 5.1"),
        _order(constants["multi", "noise"], "multi", "noise", "Lemma 5.3"),
        _faster(constants, grid, "single"),
        _faster(constants, grid, "multi"),
    )


def growth_factor(curve: Floats, first: int, last: int) -> float:
    """Factor g of a curve a (g^t - 1), fitted to its increments between two epochs.

    Args:
        curve: Values at epochs 0, 1, ..., rising.
        first: First epoch of the window.
        last: Its last epoch; at least two increments must be within.
    """
    increments = np.diff(curve)[first:last]
    if len(increments) < 2 or (increments <= 0).any():
        return math.nan
    return math.exp(np.polyfit(np.arange(first, last), np.log(increments), 1)[0])


def window(loss: Floats) -> tuple[int, int]:
    """First and last epoch of the fit, from the training loss."""
    below = np.flatnonzero(loss < FALLEN * loss[0])
    last = int(below[0]) if len(below) else len(loss) - 1
    return last // 3, last


def run_factors(run: Run) -> tuple[float, float]:
    """Growth factors of max_r |gamma_r| and of max_r rho_{r,i}, averaged over i, of a run."""
    assert run.gamma_curve is not None
    assert run.rho_curve is not None
    first, last = window(run.loss.double().numpy())
    gamma = run.gamma_curve.abs().amax(1).double().numpy()
    rho = run.rho_curve.amax(1).double().mean(1).numpy()
    return growth_factor(gamma, first, last), growth_factor(rho, first, last)


def _constants(
    grid: GrowthGrid, start: float, rate: float, modality: str, seeds: Sequence[int]
) -> list[tuple[float, float]]:
    """Fitted constants of signal and noise, once a seed."""
    point = Scaled(n=grid.n, noise_rate=rate, noise_start=start, n_snr2=grid.n_snr2, c_mu=grid.c_mu)
    # By then the noise has grown from its start to order 1, at the slowest constant of order one.
    epochs = math.ceil(math.log(20 / start) / math.log1p(rate * 0.5))
    cfg = point.config(modality=modality, epochs=epochs, evaluate_every=0, coefficients_every=1)
    unit = {"eta": cfg.eta, "m": cfg.m, "tau": cfg.tau_value}
    c_mu = grid.c_mu if modality == "multi" else 1.0
    signal = signal_growth(mu_norm=cfg.mu_norm, c_mu=c_mu, **unit) - 1
    noise = noise_growth(sigma_xi=cfg.sigma_xi, d=cfg.d, n=cfg.n, **unit) - 1
    pairs = [run_factors(run) for run in train_many([cfg.replace(seed=s) for s in seeds])]
    return [((g - 1) / signal, (r - 1) / noise) for g, r in pairs]


def _bound(values: Floats, lemma: float, modality: str, what: str, grid: GrowthGrid) -> Row:
    by_start = values.reshape(len(grid.starts), len(grid.rates), -1).mean(1)
    smallest_start = by_start[int(np.argmin(grid.starts))]
    mean, sd = spread(smallest_start)
    at_largest = by_start[int(np.argmax(grid.starts))].mean()
    times = max(grid.starts) / min(grid.starts)
    return Row(
        statement=f"{modality}-modal: {what} grows by 1 + {lemma} x rate an epoch",
        source=LEMMA[modality],
        predicted=f">= {lemma}",
        quantity="fitted constant at the smallest sigma_0",
        per_seed=tuple(smallest_start.tolist()),
        criterion=f"not below {lemma} by more than two standard errors",
        agrees=mean + 2 * sd / math.sqrt(len(smallest_start)) >= lemma,
        note=f"{at_largest:.3f} where sigma_0 is {times:.0f} times as large",
    )


def _order(values: Floats, modality: str, what: str, source: str) -> Row:
    means = values.mean(1)
    low, high = ORDER_ONE
    return Row(
        statement=f"{modality}-modal: {what} grows by 1 + const x rate an epoch",
        source=source,
        predicted="const of order 1",
        quantity="fitted constant, all settings",
        per_seed=tuple(values.mean(0).tolist()),
        criterion=f"every setting in {low} .. {high}, largest <= {STEADY} x smallest",
        agrees=bool(low <= means.min() and means.max() <= min(high, STEADY * means.min())),
        note=f"settings from {means.min():.3f} to {means.max():.3f}",
    )


def _faster(constants: dict[tuple[str, str], Floats], grid: GrowthGrid, modality: str) -> Row:
    """Growth of the signal over that of the noise."""
    strength = grid.n_snr2 * (grid.c_mu if modality == "multi" else 1.0)
    ratio = strength * constants[modality, "signal"] / constants[modality, "noise"]
    faster = ratio < 1 if modality == "single" else ratio > 1
    winner = "noise" if modality == "single" else "signal"
    return Row(
        statement=f"{modality}-modal: {winner} grows faster",
        source="Lemmas 5.2, 5.4",
        predicted="< 1" if modality == "single" else "> 1",
        quantity=f"rate of signal / rate of noise, n SNR^2 = {grid.n_snr2}, C_mu = {grid.c_mu}",
        per_seed=tuple(ratio.mean(0).tolist()),
        criterion="in every run",
        agrees=bool(faster.all()),
        note=f"equal rates would need {'C_mu ' * (modality == 'multi')}n SNR^2 = "
        f"{strength / ratio.mean():.2f}",
    )


def _panel(constants: dict[tuple[str, str], Floats], grid: GrowthGrid) -> Panel:
    count = len(grid.rates)
    series = [
        measured_series(
            f"{what}, {modality}", modality, grid.rates, values[-count:], faint=what == "noise"
        )
        for (modality, what), values in constants.items()
    ]
    for label, value in (("0.96 (Lemma 5.2)", SINGLE_RATE), ("0.48 (Lemma 5.4)", MULTI_RATE)):
        series.append(Series(label=label, modality=None, x=grid.rates, mean=(value,) * count))
    return Panel(
        title="Growth constants",
        fixed=rf"$n$ = {grid.n}, $d$ = {power_of_ten(Scaled().d)}, smallest $\sigma_0$",
        xlabel=r"growth rate of noise, $\eta\sigma_\xi^2 d/(nm\tau)$ per epoch",
        ylabel="(factor per epoch $-$ 1) / rate",
        log_x=count > 1,
        series=tuple(series),
    )


__all__ = ["GrowthGrid", "check", "growth_factor", "judge", "run_factors", "window"]

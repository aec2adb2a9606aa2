"""Growth factors of signal and noise in the first stage (Lemmas 5.1 to 5.4).

gamma and rho start at 0 and grow like a (g^t - 1), so their increments are a (g - 1) g^t: a
straight line in logarithms, whose slope gives g. The constant is (g - 1) over the theory's rate,
eta sigma_xi^2 d / (n m tau) for noise and C_mu eta |mu|^2 / (m tau) for signal. The window ends
where the loss has fallen by a tenth, as the theory takes the softmax weights of the first stage to
be those of the start; it begins after a third of that, when decaying modes have gone.

The lemmas are about sigma_0 -> 0 with d large enough for Assumption 4.1, so the constants are
fitted over a sequence of sigma_0, from that of Figure 1 to the smallest that the assumption allows.

Criteria. A lemma's constant enters T1 as a lower bound (0.96 in Lemma 5.2, 0.48 in Lemma 5.4):
agrees if at the smallest sigma_0 the mean is not below it by more than two standard errors; where
the constant is below it at Figure 1's sigma_0, its means must also rise at every step of the
sequence, and the note says "asymptotic". An upper bound: agrees if the mean is not above it by more
than two standard errors, at every sigma_0 for the noise (1.06 in Lemma D.9); for the signal (0.52
in Lemma C.4) at a larger n, since it grows with the share of the more frequent label, which is
about 1/2 + 0.4 / sqrt(n): 0.54 at n = 100. Which grows faster: agrees if it does in every run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

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
from mmcl_fast.theory import (
    MULTI_NOISE_RATE,
    MULTI_RATE,
    SINGLE_RATE,
    SINGLE_SIGNAL_RATE,
    noise_growth,
    signal_growth,
)
from mmcl_fast.training import train
from mmcl_fast.training.run import Run

FALLEN = 0.9
LEMMA = {"single": "Lemma 5.2", "multi": "Lemma 5.4"}


@dataclass(frozen=True)
class GrowthGrid:
    """Settings to train; the starts fall from Figure 1's."""

    n: int = 100
    rates: tuple[float, ...] = (0.04, 0.08)
    starts: tuple[float, ...] = tuple(FIGURE_1_START / 10**k for k in range(5))
    n_snr2: float = 1.25
    c_mu: float = 3.0
    large_n: int = 800
    large_n_start: float = FIGURE_1_START / 100


def check(seeds: Sequence[int], grid: GrowthGrid | None = None) -> Finding:
    """Fit the four growth constants over rates and starts.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train.
    """
    grid = grid or GrowthGrid()
    pairs = list(itertools.product(grid.starts, grid.rates))
    # [settings, seeds] for each modality and quantity
    constants: dict[tuple[str, str], Floats] = {}
    for modality in ("single", "multi"):
        values = [_constants(grid, start, rate, modality, seeds) for start, rate in pairs]
        constants[modality, "signal"] = np.array([[v[0] for v in row] for row in values])
        constants[modality, "noise"] = np.array([[v[1] for v in row] for row in values])
    large = replace(grid, n=grid.large_n)
    pairs_at_large = _constants(large, grid.large_n_start, grid.rates[-1], "single", seeds)
    rows = judge(constants, np.array([signal for signal, _ in pairs_at_large]), grid)
    return Finding(name="growth", rows=rows, panel=_panel(constants, grid), settings=asdict(grid))


def judge(
    constants: dict[tuple[str, str], Floats], large: Floats, grid: GrowthGrid
) -> tuple[Row, ...]:
    """The rows of the check.

    Args:
        constants: Constants [starts x rates, seeds] by modality and quantity ("signal", "noise").
        large: Constants of the signal in single-modal training at the larger n, [seeds].
        grid: Settings of the runs.
    """
    return (
        _at_least(constants["single", "noise"], SINGLE_RATE, "single", "noise", grid),
        _at_least(constants["multi", "signal"], MULTI_RATE, "multi", "signal", grid),
        _signal_at_most(_by_start(constants["single", "signal"], grid), large, grid),
        _noise_at_most(_by_start(constants["multi", "noise"], grid), grid),
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
    # One run at a time: the coefficients of every epoch are 20 MB a run.
    pairs = [run_factors(train(cfg.replace(seed=s))) for s in seeds]
    return [((g - 1) / signal, (r - 1) / noise) for g, r in pairs]


def _by_start(values: Floats, grid: GrowthGrid) -> Floats:
    """Mean over rates, [starts, seeds]."""
    means: Floats = values.reshape(len(grid.starts), len(grid.rates), -1).mean(1)
    return means


def _standard_error(values: Floats) -> float:
    return spread(values)[1] / math.sqrt(len(values))


def _at_least(values: Floats, lemma: float, modality: str, what: str, grid: GrowthGrid) -> Row:
    by_start = _by_start(values, grid)
    means, last = by_start.mean(1), by_start[-1]
    approached = bool(means[0] < lemma)
    holds = means[-1] + 2 * _standard_error(last) >= lemma
    return Row(
        statement=f"{modality}-modal: {what} grows by 1 + {lemma} x rate an epoch",
        source=LEMMA[modality],
        predicted=f">= {lemma}",
        quantity="fitted constant at the smallest sigma_0",
        per_seed=tuple(last.tolist()),
        criterion=f"not below {lemma} by more than two standard errors"
        + "; rises as sigma_0 falls" * approached,
        agrees=bool(holds and (not approached or (np.diff(means) > 0).all())),
        note="asymptotic: " * approached + _sequence(means, grid),
    )


def _not_above(values: Floats, limit: float) -> bool:
    """Whether the mean over seeds is not above a limit by more than two standard errors."""
    return bool(values.mean() - 2 * _standard_error(values) <= limit)


def _signal_at_most(by_start: Floats, large: Floats, grid: GrowthGrid) -> Row:
    return Row(
        statement=f"single-modal: signal grows by at most 1 + {SINGLE_SIGNAL_RATE} x rate an epoch",
        source="Lemma C.4",
        predicted=f"<= {SINGLE_SIGNAL_RATE}",
        quantity=f"fitted constant, n = {grid.large_n}",
        per_seed=tuple(large.tolist()),
        criterion=f"not above {SINGLE_SIGNAL_RATE} by more than two standard errors",
        agrees=_not_above(large, SINGLE_SIGNAL_RATE),
        note=f"n = {grid.n}: {_sequence(by_start.mean(1), grid)}",
    )


def _noise_at_most(by_start: Floats, grid: GrowthGrid) -> Row:
    return Row(
        statement=f"multi-modal: noise grows by at most 1 + {MULTI_NOISE_RATE} x rate an epoch",
        source="Lemma D.9",
        predicted=f"<= {MULTI_NOISE_RATE}",
        quantity="fitted constant, all sigma_0",
        per_seed=tuple(by_start.mean(0).tolist()),
        criterion=f"not above {MULTI_NOISE_RATE} by more than two standard errors at any sigma_0",
        agrees=all(_not_above(values, MULTI_NOISE_RATE) for values in by_start),
        note=_sequence(by_start.mean(1), grid),
    )


def _sequence(means: Floats, grid: GrowthGrid) -> str:
    falls = ", ".join(f"{grid.starts[0] / start:,.0f}" for start in grid.starts)
    return f"{', '.join(f'{mean:.3f}' for mean in means)} at Figure 1's sigma_0 / {falls}"


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
    x = tuple(grid.starts[0] / start for start in grid.starts)
    series = [
        measured_series(
            f"{what}, {modality}", modality, x, _by_start(values, grid), faint=what == "noise"
        )
        for (modality, what), values in constants.items()
    ]
    for label, value in (
        ("0.96 (Lemma 5.2)", SINGLE_RATE),
        ("0.48 (Lemma 5.4)", MULTI_RATE),
        ("0.52 (Lemma C.4)", SINGLE_SIGNAL_RATE),
    ):
        series.append(Series(label=label, modality=None, x=x, mean=(value,) * len(x)))
    return Panel(
        title="Growth constants",
        fixed=rf"$n$ = {grid.n}, $d$ = {power_of_ten(Scaled().d)}",
        xlabel=r"$\sigma_0$ of Figure 1 over $\sigma_0$",
        ylabel="(factor per epoch $-$ 1) / rate",
        log_x=len(x) > 1,
        series=tuple(series),
    )


__all__ = ["GrowthGrid", "check", "growth_factor", "judge", "run_factors", "window"]

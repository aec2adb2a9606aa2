"""Sizes of gamma and rho at T1, as n grows with n SNR^2 fixed (Lemmas 5.2 and 5.4).

What the lemmas' own constants give for rho of multi-modal training: it grows from
sigma_0 sigma_xi sqrt(d) by 1 + 1.06 x rate (Lemma D.9) for the T1 epochs in which a signal that
grows by 1 + 0.48 x rate (Lemma 5.4) rises from sigma_0 |mu| to 20. With k the ratio of the two
logarithmic rates, 2.21 / (C_mu n SNR^2) for small steps,

    rho(T1) <= sigma_0 sigma_xi sqrt(d) (20 / (sigma_0 |mu|))^k,

which is of order sigma_0^(1 - k) and, with sigma_0 sigma_xi sqrt(d) fixed and
|mu| = sigma_xi sqrt(d) SNR, of order n^(k / 2). The last line of D.1.3 has n^(-1/2) instead: for
k = 1/2 its sqrt(sigma_0) sigma_xi sqrt(d) / sqrt(|mu|) is at most 1 / SNR by
sigma_0 <= 1 / |mu|, and 1 / SNR is of order sqrt(n), not 1 / sqrt(n).

Criteria. Omega(1): agrees if the quantity is at least 0.1 at every n and its exponent in n is
within -0.1 .. 0.1. O~(1 / sqrt(n)): agrees if the exponent is at most -0.4, which leaves 0.1 to
the logarithm. Small at the start, small at the end: rho of multi-modal training at T1 as sigma_0
falls at one n; agrees if the exponent in sigma_0 is within 0.1 of 1 - k, at every C_mu a row.
Exponents are of least squares through the means over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from mmcl_fast.experiments.scaling import FIGURE_1_START, Scaled
from mmcl_fast.experiments.theory_checks.check import (
    Finding,
    Floats,
    Panel,
    Row,
    Series,
    log_slope,
    measured_series,
    power_of_ten,
)
from mmcl_fast.experiments.theory_checks.first_stage import predicted_t1
from mmcl_fast.experiments.theory_checks.growth import LEMMA
from mmcl_fast.theory import MULTI_NOISE_RATE, MULTI_RATE, noise_growth, signal_growth
from mmcl_fast.training import train_many
from mmcl_fast.training.run import Run

LEAST = 0.1
FLAT = 0.1
FALLING = -0.4
NEAR = 0.1
_TEX = {"gamma": r"$\max_r|\gamma_r|$", "rho": r"$\max_{r,i}|\rho_{r,i}|$"}


@dataclass(frozen=True)
class ScaleGrid:
    """Settings to train."""

    n: tuple[int, ...] = (50, 100, 200, 400, 800)
    noise_rate: float = 0.08
    starts: tuple[float, ...] = tuple(FIGURE_1_START / 10**k for k in range(5))
    starts_n: int = 100
    c_mu: tuple[float, ...] = (3.0, 3.75, 11.25)


def check(seeds: Sequence[int], grid: ScaleGrid | None = None) -> Finding:
    """Train to T1 at every n, both modalities.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train.
    """
    grid = grid or ScaleGrid()
    rows: list[Row] = []
    series: list[Series] = []
    for modality in ("single", "multi"):
        gammas, rhos = [], []
        for n in grid.n:
            runs = _runs_to_t1(Scaled(n=n, noise_rate=grid.noise_rate), modality, seeds)
            gammas.append([_largest(run.gamma) for run in runs])
            rhos.append([_rho(run, modality) for run in runs])
        gamma, rho = np.array(gammas), np.array(rhos)
        stays, falls = (rho, gamma) if modality == "single" else (gamma, rho)
        names = ("gamma", "rho") if modality == "single" else ("rho", "gamma")
        rows += [of_order_one(grid.n, stays, modality), vanishing(grid.n, falls, modality)]
        small, large = names
        series += [
            measured_series(
                f"{_TEX[name]}, {modality}", modality, grid.n, values, faint=name == "rho"
            )
            for name, values in ((large, stays), (small, falls))
        ]
    rows += [_over_starts(grid, c_mu, seeds) for c_mu in grid.c_mu]
    guide = tuple(2.0 / math.sqrt(n) for n in grid.n)
    series.append(
        Series(label="slope $-1/2$", modality=None, x=tuple(map(float, grid.n)), mean=guide)
    )
    panel = Panel(
        title="Coefficients at $T_1$",
        fixed=rf"$d$ = {power_of_ten(Scaled().d)}, Figure 1's start $\sigma_0\sigma_\xi\sqrt{{d}}$",
        xlabel="$n$, samples",
        ylabel="largest coefficient",
        series=tuple(series),
        log_x=True,
        log_y=True,
    )
    return Finding(name="scale", rows=tuple(rows), panel=panel, settings=asdict(grid))


def of_order_one(n: Sequence[int], values: Floats, modality: str) -> Row:
    """The row of the coefficient that is to be Omega(1): `values` is [n, seeds]."""
    means = values.mean(1)
    exponent = log_slope(n, means)
    what = "max_r rho_{r,i} of every i" if modality == "single" else "max_r |gamma_r|"
    return Row(
        statement=f"{modality}-modal: {what} = Omega(1) at T1",
        source=LEMMA[modality],
        predicted="exponent 0",
        quantity="exponent in n, seed by seed",
        per_seed=_exponents(n, values),
        criterion=f"at least {LEAST} at every n, exponent within {-FLAT} .. {FLAT}",
        agrees=bool(means.min() >= LEAST and abs(exponent) <= FLAT),
        note=_between(n, means, exponent),
    )


def vanishing(n: Sequence[int], values: Floats, modality: str) -> Row:
    """The row of the coefficient that is to be O~(1 / sqrt(n)): `values` is [n, seeds]."""
    means = values.mean(1)
    exponent = log_slope(n, means)
    what = "max_r |gamma_r|" if modality == "single" else "max_{r,i} |rho_{r,i}|"
    return Row(
        statement=f"{modality}-modal: {what} = O~(1 / sqrt(n)) at T1",
        source=LEMMA[modality],
        predicted="exponent <= -0.5, up to logarithms",
        quantity="exponent in n, seed by seed",
        per_seed=_exponents(n, values),
        criterion=f"exponent at most {FALLING}",
        agrees=exponent <= FALLING,
        note=_between(n, means, exponent),
    )


def with_sigma_0(starts: Sequence[float], values: Floats, point: Scaled) -> Row:
    """The row of rho over initial scales, at one n and C_mu: `values` is [starts, seeds]."""
    means = values.mean(1)
    exponent, expected = log_slope(starts, means), 1 - rate_ratio(point)
    return Row(
        statement="multi-modal: max_{r,i} |rho_{r,i}| at T1 vanishes with sigma_0 like "
        f"sigma_0^(1 - k), C_mu n SNR^2 = {point.c_mu * point.n_snr2:.2f}",
        source="rates of Lemmas 5.4, D.9",
        predicted=f"{expected:.2f}",
        quantity=f"exponent in sigma_0, seed by seed, n = {point.n}",
        per_seed=_exponents(starts, values),
        criterion=f"within {NEAR} of 1 - k",
        agrees=abs(exponent - expected) <= NEAR,
        note=f"{means[0]:.3g} at Figure 1's sigma_0, {means[-1]:.2g} at "
        f"{starts[-1] / starts[0]:.0e} of it",
    )


def rate_ratio(point: Scaled) -> float:
    """k: logarithmic rate of Lemma D.9's bound on the noise over that of Lemma 5.4's signal."""
    unit = {"eta": point.eta, "m": point.m, "tau": point.tau}
    noise = noise_growth(sigma_xi=1.0, d=point.d, n=point.n, rate=MULTI_NOISE_RATE, **unit)
    signal = signal_growth(mu_norm=point.mu_norm, c_mu=point.c_mu, rate=MULTI_RATE, **unit)
    return math.log(noise) / math.log(signal)


def _over_starts(grid: ScaleGrid, c_mu: float, seeds: Sequence[int]) -> Row:
    point = Scaled(n=grid.starts_n, c_mu=c_mu, noise_rate=grid.noise_rate)
    values = [
        [_rho(run, "multi") for run in _runs_to_t1(replace(point, noise_start=s), "multi", seeds)]
        for s in grid.starts
    ]
    return with_sigma_0(grid.starts, np.array(values), point)


def _runs_to_t1(point: Scaled, modality: str, seeds: Sequence[int]) -> list[Run]:
    cfg = point.config(modality=modality, evaluate_every=0)
    cfg = cfg.replace(epochs=math.ceil(predicted_t1(cfg)))
    return train_many([cfg.replace(seed=s) for s in seeds])


def _between(n: Sequence[int], means: Floats, exponent: float) -> str:
    return (
        f"exponent of the means {exponent:.2f}: "
        f"{means[0]:.2f} at n = {n[0]}, {means[-1]:.2f} at n = {n[-1]}"
    )


def _exponents(x: Sequence[float], values: Floats) -> tuple[float, ...]:
    return tuple(log_slope(x, column) for column in values.T)


def _largest(coefficients: torch.Tensor | None) -> float:
    assert coefficients is not None
    return float(coefficients.abs().max())


def _rho(run: Run, modality: str) -> float:
    """What the lemma bounds: from below for every sample (single), from above for all (multi)."""
    assert run.rho is not None
    if modality == "single":
        return float(run.rho.amax(0).min())
    return _largest(run.rho)


__all__ = ["ScaleGrid", "check", "of_order_one", "rate_ratio", "vanishing", "with_sigma_0"]

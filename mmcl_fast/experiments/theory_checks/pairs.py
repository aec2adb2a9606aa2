"""What becomes of every pair of a neuron and a sample in the first stage (Lemmas C.7, C.9, C.11).

A pair (r, i) is initially active if <w_r(0), xi_i> > 0. While the softmax weights are those of the
start, 1 / (M + 1) each, rho_{r,i} of an active pair moves in proportion to

    <w_r, xi_i> - B_r / (M + 1),    B_r = sum over the other label's samples of act(<w_r, xi_j>):

its own activation pulls it up, the mean activation of its negatives pulls it down. Lemma C.11
claims for *every* active pair with y_i = 1 that rho grows (22) and that the pair stays active
(24). Its proof needs (23), <w_r(0), xi_i> >= 101 C_l B_r(0) / (M + 1), which follows if B_r(0) is
of order sqrt(n) as Lemma C.9 says. But B_r(0) is a sum of about n / 4 positive terms, of mean
0.2 n sigma_0 sigma_xi sqrt(d), and M + 1 is n / 2: (23) asks for an activation of 40 standard
deviations. Only its deviation from the mean is of order sqrt(n).

Criteria. (22), (24): agrees if at every sigma_0 at most 1 % of the active pairs with y_i = 1 have
rho < 0, or are inactive, at T1. (23): agrees if at least 99 % of these pairs meet it with C_l = 1.
C.7, inactive pairs stay as they are: agrees if at every sigma_0 at most 1 % of the inactive pairs
have rho != 0 at T1. C.9: agrees if the exponent in n of the mean of B_r(0) is at most 0.6; of its
deviation: likewise. All at a d at which Assumption 4.1 holds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

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
from mmcl_fast.experiments.theory_checks.start import Start, start_of
from mmcl_fast.training import train_many
from mmcl_fast.training.run import Run

FEW = 0.01
ROOT = 0.6
NEEDED = 101.0


@dataclass(frozen=True)
class PairsGrid:
    """Settings to train; the last start is also tried at a d that is too small for it."""

    n: int = 100
    noise_rate: float = 0.08
    starts: tuple[float, ...] = (FIGURE_1_START, FIGURE_1_START / 1000)
    small_d: int = 10**9
    sums_n: tuple[int, ...] = (50, 100, 200, 400, 800)
    bins: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class PairShares:
    """Shares of the pairs of one run.

    Attributes:
        fallen: Of the active pairs with y_i = 1, those with rho < 0 at T1.
        silenced: Of the same pairs, those inactive at T1.
        meet: Of the same pairs, those that meet (23) with C_l = 1.
        above: Of the same pairs, those above the mean of their negatives, B_r(0) / (M + 1).
        woken: Of the inactive pairs, those with rho != 0 at T1.
        by_size: Of the active pairs with y_i = 1 of each bin of initial size, those with rho < 0.
    """

    fallen: float
    silenced: float
    meet: float
    above: float
    woken: float
    by_size: tuple[float, ...]


def check(seeds: Sequence[int], grid: PairsGrid | None = None) -> Finding:
    """Follow every pair of single-modal training to T1.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train.
    """
    grid = grid or PairsGrid()
    base = Scaled(n=grid.n, noise_rate=grid.noise_rate)
    found = [_shares(base, start, seeds, grid.bins) for start in grid.starts]
    small = _shares(
        Scaled(n=grid.n, d=grid.small_d, noise_rate=grid.noise_rate),
        grid.starts[-1],
        seeds,
        grid.bins,
    )
    sums = [[start_of(Scaled(n=n).config(seed=s)) for s in seeds] for n in grid.sums_n]
    rows = (
        *active_rows(found, grid),
        inactive_row(found, small, grid),
        *sum_rows(grid.sums_n, sums),
    )
    return Finding(name="pairs", rows=rows, panel=_panel(found, grid), settings=asdict(grid))


def pair_shares(run: Run, start: Start, bins: Sequence[float]) -> PairShares:
    """Shares of a run that ends at T1.

    Args:
        run: Single-modal, with coefficients.
        start: Its data before training.
        bins: Edges of <w_r(0), xi_i> / (sigma_0 sigma_xi sqrt(d)).
    """
    assert run.rho is not None
    cfg = run.config
    active = start.noise > 0
    chosen = active & (start.labels > 0)
    rho, initial = run.rho.double(), start.noise
    mean_negative = start.other_label_sums() / (start.negatives() + 1)
    size = initial / (cfg.sigma_0 * cfg.sigma_xi * math.sqrt(cfg.d))
    within = [chosen & (size > low) & (size <= high) for low, high in itertools.pairwise(bins)]
    return PairShares(
        fallen=_share(rho < 0, chosen),
        silenced=_share(start.moved(run) <= 0, chosen),
        meet=_share(initial >= NEEDED * mean_negative, chosen),
        above=_share(initial > mean_negative, chosen),
        woken=_share(rho != 0, ~active),
        by_size=tuple(_share(rho < 0, bin_) for bin_ in within),
    )


def active_rows(found: Sequence[Sequence[PairShares]], grid: PairsGrid) -> tuple[Row, ...]:
    """Rows on the initially active pairs with y_i = 1: shares [starts][seeds]."""
    pairs = "initially active pair (r, i) with y_i = 1"
    first = found[0]
    shares = {
        name: np.array([[getattr(run, name) for run in runs] for runs in found])
        for name in ("fallen", "silenced", "meet", "above")
    }
    claims = (
        ("fallen", f"rho of every {pairs} grows", "(22)", "rho < 0"),
        ("silenced", f"every {pairs} stays active", "(24)", "are inactive"),
    )
    rows = [
        Row(
            statement=f"single-modal: {claim}",
            source=f"Lemma C.11 {number}",
            predicted="0",
            quantity=f"share of these pairs that {'have ' * (name == 'fallen')}{end} at T1, "
            "Figure 1's sigma_0",
            per_seed=tuple(shares[name][0].tolist()),
            criterion=f"at most {FEW} at every sigma_0",
            agrees=bool(shares[name].mean(1).max() <= FEW),
            note=_by_start(shares[name], grid),
        )
        for name, claim, number, end in claims
    ]
    rows.append(
        Row(
            statement=f"single-modal: <w_r(0), xi_i> >= 101 B_r(0) / (M + 1) for every {pairs}",
            source="Lemma C.11 (23)",
            predicted="1",
            quantity="share of these pairs that meet it",
            per_seed=tuple(run.meet for run in first),
            criterion=f"at least {1 - FEW}",
            agrees=bool(shares["meet"][0].mean() >= 1 - FEW),
            note=f"{shares['above'][0].mean():.2f} are above B_r(0) / (M + 1) itself, "
            "where rho begins to grow",
        )
    )
    return tuple(rows)


def inactive_row(
    found: Sequence[Sequence[PairShares]], small: Sequence[PairShares], grid: PairsGrid
) -> Row:
    """The row of Lemma C.7; `small` is the last start at a d that is too small for it."""
    woken = np.array([[run.woken for run in runs] for runs in found])
    return Row(
        statement="single-modal: initially inactive pairs stay inactive, with rho = 0",
        source="Lemma C.7",
        predicted="0",
        quantity="share of these pairs with rho != 0 at T1, smallest sigma_0",
        per_seed=tuple(woken[-1].tolist()),
        criterion=f"at most {FEW} at every sigma_0",
        agrees=bool(woken.mean(1).max() <= FEW),
        note=f"{_by_start(woken, grid)}; {np.mean([run.woken for run in small]):.2f} at the last "
        f"with d = {grid.small_d:g}, where d >= n / (sigma_0 sigma_xi) fails",
    )


def sum_rows(n: Sequence[int], starts: Sequence[Sequence[Start]]) -> tuple[Row, ...]:
    """Rows on B_r(0): starts [n][seeds], all of one sigma_0 sigma_xi sqrt(d)."""
    sums = [[start.other_label_sums() for start in runs] for runs in starts]
    means = np.array([[float(x.mean()) for x in runs] for runs in sums])
    scatter = np.array([[_scatter(x) for x in runs] for runs in sums])
    unit = float(np.mean([start.noise.std() for runs in starts for start in runs]))
    return (
        Row(
            statement="single-modal: B_r(0), the sum of the other label's activations, is "
            "O(sqrt(n))",
            source="Lemma C.9",
            predicted="exponent 0.5",
            quantity="exponent in n of its mean over neurons, seed by seed",
            per_seed=tuple(log_slope(n, column) for column in means.T),
            criterion=f"exponent of the means at most {ROOT}",
            agrees=log_slope(n, means.mean(1)) <= ROOT,
            note=f"mean {means[-1].mean() / n[-1] / unit:.3f} n sigma_0 sigma_xi sqrt(d) "
            f"at n = {n[-1]}",
        ),
        Row(
            statement="single-modal: B_r(0) less its mean is O(sqrt(n))",
            source="Lemma C.9, about the mean",
            predicted="exponent 0.5",
            quantity="exponent in n of its deviation over neurons, seed by seed",
            per_seed=tuple(log_slope(n, column) for column in scatter.T),
            criterion=f"exponent of the means at most {ROOT}",
            agrees=log_slope(n, scatter.mean(1)) <= ROOT,
            note=f"deviation {scatter[-1].mean() / math.sqrt(n[-1]) / unit:.2f} sqrt(n) sigma_0 "
            f"sigma_xi sqrt(d) at n = {n[-1]}",
        ),
    )


def _scatter(sums: Tensor) -> float:
    """Standard deviation over neurons of the distinct sums: one of each label, [m, n]."""
    return float(sums.std(0).mean())


def _shares(
    base: Scaled, start: float, seeds: Sequence[int], bins: Sequence[float]
) -> list[PairShares]:
    point = Scaled(n=base.n, d=base.d, noise_rate=base.noise_rate, noise_start=start)
    cfg = point.config(evaluate_every=0)
    cfg = cfg.replace(epochs=math.ceil(predicted_t1(cfg)))
    runs = train_many([cfg.replace(seed=s) for s in seeds])
    return [pair_shares(run, start_of(run.config), bins) for run in runs]


def _share(which: Tensor, among: Tensor) -> float:
    """Share of the pairs `among` for which `which` holds; NaN if there are none."""
    return float((which & among).sum().double() / among.sum())


def _by_start(shares: Floats, grid: PairsGrid) -> str:
    return "; ".join(
        f"{mean:.4f} at Figure 1's sigma_0 / {grid.starts[0] / start:,.0f}"
        for mean, start in zip(shares.mean(1), grid.starts, strict=True)
    )


def _panel(found: Sequence[Sequence[PairShares]], grid: PairsGrid) -> Panel:
    middles = [(low + high) / 2 for low, high in itertools.pairwise(grid.bins)]
    series = [
        measured_series(
            r"$\sigma_0$ of Figure 1" + (f" / {grid.starts[0] / start:,.0f}" * bool(index)),
            "single",
            middles,
            np.array([run.by_size for run in runs]).T,
            faint=bool(index),
        )
        for index, (start, runs) in enumerate(zip(grid.starts, found, strict=True))
    ]
    series.append(
        Series(
            label="claimed: (22)",
            modality=None,
            x=(grid.bins[0], grid.bins[-1]),
            mean=(0.0, 0.0),
        )
    )
    return Panel(
        title=r"Active pairs whose $\rho$ has fallen",
        fixed=f"$n$ = {grid.n}, $d$ = {power_of_ten(Scaled().d)}, at $T_1$, single-modal",
        shares=True,
        xlabel=r"$\langle w_r(0), \xi_i\rangle/(\sigma_0\sigma_\xi\sqrt{d})$",
        ylabel=r"share with $\rho_{r,i} < 0$",
        series=tuple(series),
    )


__all__ = [
    "PairShares",
    "PairsGrid",
    "active_rows",
    "check",
    "inactive_row",
    "pair_shares",
    "sum_rows",
]

"""Signs of <w_r, mu>: kept for ever in single-modal, synchronised in multi-modal training.

The theory's statements are about the limit of large d. With <w_r, mu> = <w_r(0), mu> + gamma_r +
sum_i rho_{r,i} <xi_i, mu> / |xi_i|^2, the last term is a sum of n terms of order SNR rho / sqrt(d)
|xi|, which the theory drops; so the sign of the first two terms is reported as well.

Criteria. Kept: agrees if at most 1 % of the signs have flipped at the end of training at the
largest d. Synchronised: agrees if at least 99 % of the neurons have equal signs of <w_r, mu> and
<w~_r, mu~> at the end, at every d. Both positive from the start: Lemma D.3(1) says that the set of
neurons with <w_r, mu> > 0 and <w~_r, mu~> > 0 never changes; agrees if it has the neurons of the
start, and no others, at the end of every run at the largest d. Lemma D.3(3), the synchronisation,
says the contrary: a neuron whose signs differ at the start must join this set or the set of those
with both negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.experiments.theory_checks.check import (
    Finding,
    Floats,
    Panel,
    Row,
    measured_series,
    spread,
)
from mmcl_fast.training import train_many
from mmcl_fast.training.run import Run

KEPT = 0.01
SYNCHRONISED = 0.99


@dataclass(frozen=True)
class SignsGrid:
    """Settings to train."""

    n: int = 100
    d: tuple[int, ...] = (2000, 10**4, 10**5, 10**6, 10**7, 10**9, 10**15)
    epochs: int = 200


def check(seeds: Sequence[int], grid: SignsGrid | None = None) -> Finding:
    """Count signs at the end of training over d, both modalities.

    Args:
        seeds: Seeds of data and weights.
        grid: Settings to train.
    """
    grid = grid or SignsGrid()
    flips, kernel_flips, before, after = [], [], [], []
    joined: list[tuple[int, int, int]] = []
    for d in grid.d:
        cfg = Scaled(n=grid.n, d=d).config(epochs=grid.epochs, evaluate_every=0)
        single = [_signals(run) for run in _train(cfg, seeds)]
        flips.append([disagreement(start, end) for start, _, end in single])
        kernel_flips.append([disagreement(start, moved) for start, moved, _ in single])
        multi = _train(cfg.replace(modality="multi"), seeds)
        pairs = [(_signals(run), _signals(run, "_b")) for run in multi]
        before.append([1 - disagreement(a[0], b[0]) for a, b in pairs])
        after.append([1 - disagreement(a[2], b[2]) for a, b in pairs])
        joined = [both_positive(a, b) for a, b in pairs]  # those of the largest d remain
    values = [np.array(x) for x in (flips, kernel_flips, before, after)]
    panel = Panel(
        title="Signs after training",
        fixed=f"$n$ = {grid.n}, {grid.epochs} epochs",
        shares=True,
        xlabel="$d$, dimension",
        ylabel="fraction of neurons",
        series=(
            measured_series("flipped, single", "single", grid.d, values[0]),
            measured_series(r"the same, without $\xi$", "single", grid.d, values[1], faint=True),
            measured_series("synchronised, multi", "multi", grid.d, values[3]),
            measured_series("the same, at the start", "multi", grid.d, values[2], faint=True),
        ),
        log_x=True,
        legend=(0.47, 0.13),
    )
    rows = (*judge(grid.d, *values), unchanged_set(joined, grid.d[-1]))
    return Finding(name="signs", rows=rows, panel=panel, settings=asdict(grid))


def judge(
    d: Sequence[int], flips: Floats, kernel_flips: Floats, before: Floats, after: Floats
) -> tuple[Row, ...]:
    """The rows of the check; the fractions are [d, seeds]."""
    return (
        _kept("<w_r, mu>", d, flips),
        _kept("<w_r(0), mu> + gamma_r", d, kernel_flips),
        Row(
            statement="multi-modal: signs of <w_r, mu> and <w~_r, mu~> synchronise",
            source="Lemma D.3(3), section 5.2",
            predicted="1",
            quantity=f"equal signs at the end, d = {d[-1]:g}",
            per_seed=tuple(after[-1].tolist()),
            criterion=f"at least {SYNCHRONISED} at every d",
            agrees=bool(after.mean(1).min() >= SYNCHRONISED),
            note=f"{spread(before[-1])[0]:.2f} at the start; "
            f"least over d at the end {after.mean(1).min():.3f}",
        ),
    )


def _kept(what: str, d: Sequence[int], flips: Floats) -> Row:
    means = flips.mean(1)
    return Row(
        statement=f"single-modal: signs of {what} keep for ever",
        source="Lemma C.3, section 5.1",
        predicted="0",
        quantity=f"fraction flipped at the end, d = {d[-1]:g}",
        per_seed=tuple(flips[-1].tolist()),
        criterion=f"at most {KEPT} at the largest d",
        agrees=bool(means[-1] <= KEPT),
        note="; ".join(f"{mean:.3f} at d = {at:g}" for at, mean in zip(d, means, strict=True)),
    )


def both_positive(a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[int, int, int]:
    """Neurons positive in both modalities at the start, at the end, and at the start alone.

    Args:
        a: `signal_parts` of modality A.
        b: Those of modality B.
    """
    start, end = ((a[k] > 0) & (b[k] > 0) for k in (0, 2))
    return int(start.sum()), int(end.sum()), int((start & ~end).sum())


def unchanged_set(counts: Sequence[tuple[int, int, int]], d: int) -> Row:
    """The row of Lemma D.3(1): counts of `both_positive`, once a seed."""
    grown = [end - start for start, end, _ in counts]
    lost = sum(left for _, _, left in counts)
    start, end, _ = np.mean(counts, 0)
    return Row(
        statement="multi-modal: the set of neurons with <w_r, mu> > 0 and <w~_r, mu~> > 0 never "
        "changes",
        source="Lemma D.3(1)",
        predicted="0",
        quantity=f"neurons in it at the end less those at the start, d = {d:g}",
        per_seed=tuple(map(float, grown)),
        criterion="the same neurons in every run",
        agrees=lost == 0 and not any(grown),
        note=f"{start:.1f} at the start, {end:.1f} at the end; {lost or 'no'} neuron left it",
    )


def disagreement(one: Tensor, other: Tensor) -> float:
    """Fraction of entries whose signs differ."""
    return float((torch.sign(one) != torch.sign(other)).double().mean())


def signal_parts(
    run: Run, data: SignalNoiseData, suffix: str = ""
) -> tuple[Tensor, Tensor, Tensor]:
    """<w_r(0), mu>, the same plus gamma_r, and <w_r, mu> at the end, each [m], float64.

    Args:
        run: The trained run.
        data: Its data.
        suffix: "" for modality A, "_b" for B.
    """
    mu, noise, weights, gamma, rho = (
        getattr(owner, name + suffix).double()
        for owner, name in (
            *((data, name) for name in ("mu", "noise", "weights")),
            *((run, name) for name in ("gamma", "rho")),
        )
    )
    start = weights @ mu
    overlap = (noise @ mu) / noise.square().sum(1)
    return start, start + gamma, start + gamma + rho @ overlap


def _signals(run: Run, suffix: str = "") -> tuple[Tensor, Tensor, Tensor]:
    return signal_parts(run, sample(run.config), suffix)


def _train(cfg: TrainConfig, seeds: Sequence[int]) -> list[Run]:
    return train_many([cfg.replace(seed=s) for s in seeds])


__all__ = [
    "SignsGrid",
    "both_positive",
    "check",
    "disagreement",
    "judge",
    "signal_parts",
    "unchanged_set",
]

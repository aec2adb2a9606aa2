"""Throughput of many small runs, data and evaluation included, on one thread: runs a second.

`python -m bench.cpu.many_runs [--json FILE] [--short | --quick]`; where installed, `python -m
mmcl_fast.bench.cpu.many_runs`.

`train_many` at the paper's size on reduced data, evaluated every 20 epochs: many seeds of one
point, and many points (tau, eta, |mu|, d) of one seed each, as a phase diagram has. The CPU time of
each part of the native core is that inside its calls. Nothing is timed unless the first, a middle
and the last run equal single runs to the bit. *times eager* is against tuned eager PyTorch, which
makes its data with torch and does not evaluate.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from mmcl_fast import _native
from mmcl_fast.config import TrainConfig
from mmcl_fast.training import train, train_many
from mmcl_fast.training.run import Run

# Relative, so that both commands above work; as `bench.*` these would be banned imports.
from .. import record
from ..arguments import make_parser
from ..peers.registry import usable
from ..peers.training import eager_losses
from ..timing.measure import Quantiles, interleaved, single_thread
from .end_to_end import eager_s
from .train import EAGER

PAPER = TrainConfig(device="cpu", data="reduced", evaluate_every=20)
PARTS = {
    "data": ("fill_normal_runs", "fill_word_runs", "fill_chi"),
    "inner products": ("inner_products",),
    "training": ("train_trajectories",),
    "embeddings": ("embed",),
    "head": ("fit_heads", "score_heads"),
}
CURVES = ("loss", "ood_accuracy", "signal", "noise")


def seeds_of_a_point(base: TrainConfig, runs: int) -> list[TrainConfig]:
    """One point, many seeds."""
    return [base.replace(seed=seed) for seed in range(runs)]


def points_of_a_seed(base: TrainConfig, runs: int) -> list[TrainConfig]:
    """Many points, one seed each: every scalar that a phase diagram varies, not by much."""
    scales = [0.8 + 0.4 * k / runs for k in range(runs)]
    return [
        base.replace(
            mu_norm=base.mu_norm * x, d=round(base.d / x), eta=base.eta * x, tau=base.tau_value / x
        )
        for x in scales
    ]


WORKLOADS: Mapping[str, Callable[[TrainConfig, int], list[TrainConfig]]] = {
    "seeds": seeds_of_a_point,
    "points": points_of_a_seed,
}


@contextmanager
def core_seconds(clock: Callable[[], float] = time.process_time) -> Iterator[dict[str, float]]:
    """CPU seconds inside each part of the native core, while the context lasts."""
    spent = dict.fromkeys(PARTS, 0.0)
    plain = {name: getattr(_native, name) for names in PARTS.values() for name in names}

    def timed(part: str, call: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*arguments: object, **named: object) -> None:
            begin = clock()
            call(*arguments, **named)
            spent[part] += clock() - begin

        return wrapped

    try:
        for part, names in PARTS.items():
            for name in names:
                setattr(_native, name, timed(part, plain[name]))
        yield spent
    finally:
        for name, call in plain.items():
            setattr(_native, name, call)


def differing(configs: Sequence[TrainConfig], runs: Sequence[Run]) -> list[str]:
    """Curves of a few runs that are not those of single runs, by run and name."""
    differing = []
    for k in sorted({0, len(runs) // 2, len(runs) - 1}):
        alone = train(configs[k])
        for name in CURVES:
            ours, single = getattr(runs[k], name), getattr(alone, name)
            if not torch.equal(ours.isnan(), single.isnan()) or not torch.equal(
                ours.nan_to_num(), single.nan_to_num()
            ):
                differing.append(f"run {k}: {name}")
    return differing


def measure(modality: str, runs: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of a results file, of one modality."""
    base = PAPER.replace(modality=modality)
    configs = {name: make(base, runs) for name, make in WORKLOADS.items()}
    seconds = interleaved(
        {name: lambda c=batch: train_many(c) for name, batch in configs.items()}, rounds
    )
    rows = []
    for name, batch in configs.items():
        parts: dict[str, list[float]] = {part: [] for part in PARTS}
        shares = []
        for _ in range(rounds):
            begin = time.process_time()
            with core_seconds() as spent:
                train_many(batch)
            whole = time.process_time() - begin
            shares.append(sum(spent.values()) / whole)
            for part, value in spent.items():
                parts[part].append(value / runs)
        per_run = Quantiles.of([s / runs for s in seconds[name]])
        keys = ("n", "d", "m", "epochs", "n_test", "evaluate_every", "data")
        settings = {"modality": modality, **{k: getattr(base, k) for k in keys}}
        rows.append(
            {
                "op": "many",
                "variant": name,
                "settings": {**settings, "runs": runs, "threads": 1, "rounds": rounds},
                "cpu_ms_per_run": per_run.to_dict(scale=1e3),
                "runs_per_s": round(1.0 / per_run.p50, 1),
                "core_share": round(median(shares), 3),
                "core_ms_per_run": {k: round(1e3 * median(v), 4) for k, v in parts.items()},
            }
        )
    return rows


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of one modality."""
    s = rows[0]["settings"]
    print(
        f"\n{s['modality']}-modal, n={s['n']} m={s['m']}, {s['epochs']} epochs, {s['runs']} runs, "
        "1 thread; CPU ms per run"
    )
    parts = "".join(f"{name:>16}" for name in PARTS)
    print(f"{'':10}{'p20':>8}{'p50':>8}{'p80':>8}{'runs/s':>9}{'core':>7}{parts}")
    for row in rows:
        t = row["cpu_ms_per_run"]
        inside = "".join(f"{row['core_ms_per_run'][name]:16.3f}" for name in PARTS)
        print(
            f"{row['variant']:10}{t['p20']:8.2f}{t['p50']:8.2f}{t['p80']:8.2f}"
            f"{row['runs_per_s']:9.0f}{row['core_share']:7.0%}{inside}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if a run differs from the same run alone."""
    args = make_parser("many", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    rounds, runs = (3, 64) if args.quick or args.short else (11, 192)
    before = record.environment()
    rows: list[dict[str, Any]] = []
    for modality in ("single", "multi"):
        for name, make in WORKLOADS.items():
            configs = make(PAPER.replace(modality=modality), 64)
            if wrong := differing(configs, train_many(configs)):
                print(f"{modality}, {name}: not a single run's: {wrong}", file=sys.stderr)
                return 1
        measured = measure(modality, runs, rounds)
        if modality == "single" and usable({EAGER: None}, args.peers):
            eager = 1e3 * eager_s(eager_losses, PAPER.replace(data="explicit"), epochs=20)
            measured = [
                {**row, f"times {EAGER}": round(eager / row["cpu_ms_per_run"]["p50"], 2)}
                for row in measured
            ]
        show(measured)
        rows += measured
    print(f"\nload before {before['load_1min']}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["WORKLOADS", "core_seconds", "differing", "main", "measure"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())

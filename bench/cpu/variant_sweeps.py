"""Sweeps of model variants, end to end, by one worker: runs a second, and that per operation.

`python -m bench.cpu.variant_sweeps [--json FILE] [--short | --quick]`; where installed, `python -m
mmcl_fast.bench.cpu.variant_sweeps`.

Each option of `bench.cpu.variants` alone, of the paper's size: data are drawn (reduced, or of the
option's kind), runs are trained by the engine that `auto` takes, evaluated every 20 epochs and
written to Parquet. The worker's CPU time of a run is the difference between a sweep of many runs
and one of few, so that its start, which takes as long as hundreds of runs, does not count;
`runs_per_s` is of the whole sweep, by wall time. The paper's model of the same modality is swept in
the same rounds, and `rate_per_flop` is runs a second times operations of a run (`run_flop`), over
those of the paper's model. Nothing is timed unless rows equal single runs, bit for bit.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from mmcl_fast import TrainConfig, sweep, train
from mmcl_fast.engines.cost import work

# Relative, so that both commands above work; as `bench.*` these would be banned imports.
from .. import record
from ..arguments import make_parser
from ..timing.measure import Quantiles, paired_ratio
from .variants import OPTIONS, epoch_flop

EVALUATED = TrainConfig(device="cpu", data="reduced", evaluate_every=20)
PAPERS = "the paper's model"
FEW_RUNS, RUNS, FEWER_RUNS = 16, 256, 64
ROUNDS = 3
QUICK, SHORT = ("logistic",), ("classes 10",)
CURVES = ("loss", "ood_accuracy", "signal", "noise")
# Mean of a head at these settings: 4.7 to 6.6 by option.
NEWTON_STEPS = 5.7


@dataclass(frozen=True)
class Swept:
    """Seconds of a sweep: of the wall, and of the worker's processor with its start."""

    wall_s: float
    cpu_s: float


def run_flop(cfg: TrainConfig) -> float:
    """Multiplications and additions of a run of the native core: all that grows with its sizes.

    Products of the epochs (`epoch_flop`), inner products before them, and of each evaluation the
    embeddings and the steps of its heads, of which there is one a class.
    """
    amounts = work(cfg, "native")
    at_start, of_embeddings, gram_of_heads = amounts[3], amounts[13], amounts[15]
    least = min(cfg.n, cfg.m)  # gram_of_heads is n m least of each head and evaluation
    factor_of_heads = gram_of_heads * least**2 / (3 * cfg.n * cfg.m)
    heads = NEWTON_STEPS * (gram_of_heads + factor_of_heads)
    return cfg.epochs * epoch_flop(cfg) + at_start + of_embeddings + heads


def swept(cfg: TrainConfig, runs: int, *, checked: bool) -> Swept:
    """Sweep seeds 0, 1, ... of a setting; `checked` compares some rows with single runs."""
    with tempfile.TemporaryDirectory() as folder:
        started, before = time.perf_counter(), os.times()
        plan = sweep.make_plan(cfg, seeds=runs)
        result = sweep.run_sweep(plan, folder, policy=sweep.Policy(workers=1))
        after, wall = os.times(), time.perf_counter() - started
        assert sum(result.counts.values()) == runs
        if checked:
            check(plan, sweep.load(folder).to_pylist())
    spent = after.children_user - before.children_user
    return Swept(wall, spent + after.children_system - before.children_system)


def check(plan: sweep.Plan, rows: Sequence[dict[str, Any]]) -> None:
    """The first and the last row equal single runs, or nothing is timed."""
    for row in (rows[0], rows[-1]):
        run = train(plan.config(row["run_id"]))
        for name in CURVES:
            np.testing.assert_array_equal(np.array(row[name], np.float32), getattr(run, name))


def settings_of(options: Sequence[str]) -> dict[str, TrainConfig]:
    """The paper's model of each modality that is needed, then the options."""
    chosen = {name: EVALUATED.replace(**OPTIONS[name]) for name in options}
    modalities = dict.fromkeys(cfg.modality for cfg in chosen.values())
    papers = {f"{PAPERS}, {x}": EVALUATED.replace(modality=x) for x in modalities}
    return papers | chosen


def measure(options: Sequence[str], runs: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of the options and of the paper's model."""
    configs = settings_of(options)
    seconds: dict[str, list[float]] = {name: [] for name in configs}
    walls: dict[str, list[float]] = {name: [] for name in configs}
    for k in range(rounds):
        for name in list(configs) if k % 2 == 0 else reversed(configs):
            few = swept(configs[name], FEW_RUNS, checked=k == 0)
            many = swept(configs[name], runs, checked=False)
            seconds[name].append((many.cpu_s - few.cpu_s) / (runs - FEW_RUNS))
            walls[name].append(many.wall_s)
    rows = []
    for name, cfg in configs.items():
        paper = f"{PAPERS}, {cfg.modality}"
        flop = run_flop(cfg) / run_flop(configs[paper])
        rate = paired_ratio(seconds[paper], seconds[name])
        sizes = {k: getattr(cfg, k) for k in ("modality", "data", "n", "d", "m", "epochs")}
        rows.append(
            {
                "op": "variant_sweeps",
                "variant": "mmcl sweep, 1 worker",
                "settings": {"option": name, **sizes, "runs": runs, "workers": 1, "rounds": rounds},
                "cpu_ms_per_run": Quantiles.of(seconds[name]).to_dict(scale=1e3),
                "runs_per_s": round(runs / median(walls[name]), 2),
                "of_papers_rate": round(rate, 3),
                "of_papers_flop": round(flop, 3),
                "rate_per_flop": round(rate * flop, 3),
            }
        )
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    print(f"{'':28}{'CPU ms':>9}{'runs/s':>9}{'× rate':>9}{'× flop':>9}{'per flop':>10}")
    for row in rows:
        print(
            f"{row['settings']['option']:28}{row['cpu_ms_per_run']['p50']:9.2f}"
            f"{row['runs_per_s']:9.1f}{row['of_papers_rate']:9.2f}{row['of_papers_flop']:9.2f}"
            f"{row['rate_per_flop']:10.2f}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; a row that is not its single run ends it before any timing of its option."""
    args = make_parser("variant_sweeps", __doc__).parse_args(arguments)
    before = record.environment()
    few = args.quick or args.short
    options = QUICK if args.quick else SHORT if args.short else tuple(OPTIONS)
    rows = measure(options, FEWER_RUNS if few else RUNS, 1 if few else ROUNDS)
    show(rows)
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["check", "main", "measure", "run_flop", "settings_of", "swept"]

if __name__ == "__main__":
    sys.exit(main())

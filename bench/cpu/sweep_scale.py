"""Sweeps at scale: plans of 10^6 settings and 10^7 runs, resuming, uneven, small and failing runs.

`python -m bench.cpu.sweep_scale [--json FILE]`. Each case is a process of its own, so that its peak
memory is known. Seconds are those of the processor, imports left out, as the machine may be shared;
rates are of two workers that have a core each, by the processor's seconds.
"""

from __future__ import annotations

import argparse
import heapq
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcl_fast import TrainConfig, sweep, train_many
from mmcl_fast.operating_system.memory import peak_resident_bytes
from mmcl_fast.sweep.execute.schedule import chosen_shards
from mmcl_fast.sweep.execute.shard import compute
from mmcl_fast.sweep.store.plan_file import read_plan, write_plan
from mmcl_fast.sweep.store.store import Store, provenance

# Relative, so that it runs from a checkout and as mmcl_fast.bench alike.
from .. import record
from .sweep import fabricate

OP = "sweep_scale"
SMALL = TrainConfig(n=30, m=4, epochs=5, data="reduced", evaluate_every=5)
PARTS, RUNS_OF_PART = 1000, 100
WORKERS = 2


def settings_of_million() -> dict[str, Any]:
    """10^6 settings of one seed: planned and written, read."""
    values = np.linspace(0.01, 1, 1000).tolist()
    return _planned({"snr": values, "eta": values}, 1)


def runs_of_ten_million() -> dict[str, Any]:
    """One setting with 10^7 seeds."""
    return _planned({}, 10**7)


def shapes_of_hundred_thousand() -> dict[str, Any]:
    """10^5 shapes with 10 seeds: also the number of files."""
    return _planned({"n": range(10, 510), "m": range(1, 201)}, 10)


def _planned(grid: dict[str, Any], seeds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        plan = sweep.make_plan(SMALL, grid=grid, seeds=seeds)
        write_plan(plan, Path(folder))
        written = time.process_time()
        found = read_plan(Path(folder))
        read = time.process_time()
        assert found.digest == plan.digest
    return {
        "plan and write, s": written - started,
        "read, s": read - written,
        "peak, GiB": peak_resident_bytes() / 2**30,
        "files": plan.shards,
    }


def resume() -> dict[str, Any]:
    """A finished store of 1,000 parts with 100 runs each: nothing is to be computed."""
    grid = {"m": list(range(1, 26)), "mu_norm": np.linspace(0.1, 4.0, PARTS // 25).tolist()}
    base = TrainConfig(data="reduced", epochs=2, evaluate_every=1)
    plan = sweep.make_plan(base, grid=grid, seeds=RUNS_OF_PART)
    plan = replace(plan, shard_of=plan.point_of.astype(np.int32))
    with tempfile.TemporaryDirectory() as folder:
        fabricate(plan, Path(folder))
        started = time.process_time()
        result = sweep.run_sweep(sweep.make_plan(base, grid=grid, seeds=RUNS_OF_PART), folder)
        assert result.computed == 0
        return {"resume, s": time.process_time() - started}


def uneven() -> dict[str, Any]:
    """Widths 16 and 4,096: share of idle workers, with the measured time of each run."""
    base = TrainConfig(data="reduced", evaluate_every=20)
    plan = sweep.make_plan(base, grid={"m": [16, 4096]}, seeds=128)
    torch.set_num_threads(1)
    seconds = []
    for k, cfg in enumerate(plan.points):
        runs = [cfg.replace(seed=seed) for seed in range((16, 1)[k])]
        started = time.process_time()
        train_many(runs)
        seconds.append((time.process_time() - started) / len(runs))
    of_shard = np.bincount(plan.shard_of, np.array(seconds)[plan.point_of])
    idle = {}
    for workers in (8, 32):
        free = [0.0] * workers
        for shard in chosen_shards(plan, None):
            heapq.heapreplace(free, free[0] + of_shard[shard])
        idle[f"idle at {workers} workers"] = 1 - of_shard.sum() / (workers * max(free))
    return idle | {"files": plan.shards}


def small_runs() -> dict[str, Any]:
    """20,000 runs of n = 30, m = 4, 5 epochs."""
    return {"runs/s": WORKERS / _seconds_a_run(sweep.make_plan(SMALL, seeds=20_000))}


def single_shapes() -> dict[str, Any]:
    """300 shapes with one run each."""
    grid = {"n": range(10, 40), "m": range(2, 12)}
    return {"runs/s": WORKERS / _seconds_a_run(sweep.make_plan(SMALL, grid=grid))}


def failing_runs() -> dict[str, Any]:
    """Runs of n = 6, of which 3 % have one label and fail, against the same runs without these."""
    plan = sweep.make_plan(SMALL.replace(n=6), seeds=4000)
    rows = compute(plan, 0)
    runs = plan.runs_of(0)
    good = np.isin(plan.seeds[:, 0], [k for k in runs.tolist() if k not in rows.tracebacks])
    clean = replace(plan, shard_of=np.where(good, 0, 1).astype(np.int32))
    times = {}
    for name, chosen in (("with", plan), ("without", clean)):
        spent = []
        for _ in range(5):
            started = time.process_time()
            count = compute(chosen, 0).table.num_rows
            spent.append((time.process_time() - started) / count)
        times[name] = min(spent)
    return {"time of a run, × without": times["with"] / times["without"]}


def _seconds_a_run(plan: sweep.Plan, most: int = 8) -> float:
    """Processor time of a run in a worker that computes and publishes up to `most` shards."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.prepare()
        compute(plan, 0)  # libraries are loaded
        runs, started = 0, time.process_time()
        for shard in range(min(most, plan.shards)):
            rows = compute(plan, shard)
            store.publish(plan, shard, rows, provenance(1))
            runs += rows.table.num_rows
        return (time.process_time() - started) / runs


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "10^6 settings, 1 seed": settings_of_million,
    "1 setting, 10^7 seeds": runs_of_ten_million,
    "10^5 shapes, 10 seeds": shapes_of_hundred_thousand,
    "resume, 1,000 parts": resume,
    "m = 16 and 4,096": uneven,
    "n = 30, m = 4, 5 epochs": small_runs,
    "300 shapes, 1 seed": single_shapes,
    "n = 6, 3 % of the runs fail": failing_runs,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser("sweep_scale", description=__doc__)
    parser.add_argument("--json", type=Path, help="append results to this file, one a line")
    parser.add_argument("--case", choices=CASES, help="print the numbers of one case")
    args = parser.parse_args(arguments)
    if args.case:
        sys.stdout.write(json.dumps(CASES[args.case]()) + "\n")
        return 0
    before, rows = record.environment(), []
    for case in CASES:
        command = [sys.executable, "-m", __spec__.name, "--case", case]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rounded = {name: float(f"{value:.3g}") for name, value in json.loads(done.stdout).items()}
        row = {"op": OP, "variant": case, "settings": {"case": case}, "measured": rounded}
        rows.append(row | before)
        print(case, *(f"{name}={value}" for name, value in rounded.items()), flush=True)
    if args.json:
        record.append(args.json, rows)
    return 0


__all__ = ["CASES", "OP", "main"]

if __name__ == "__main__":
    sys.exit(main())

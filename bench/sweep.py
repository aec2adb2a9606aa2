"""Sweeps end to end: `python -m bench.sweep [--json FILE]`.

Planning, starting the workers, data, training, evaluation every 20 epochs, Parquet: the paper's
size, reduced data, one worker and one per core, wall time. Then a store of a million rows, and the
time of a grouped query on it. Rows of the sweep are first compared with single runs, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmcl_fast import TrainConfig, sweep, train
from mmcl_fast.bench import record
from mmcl_fast.sweep.columns import CURVES, list_column, part_schema, setting_columns
from mmcl_fast.sweep.plan_file import write_plan
from mmcl_fast.sweep.store import Store, provenance
from mmcl_fast.sweep.work import Rows

RUNS = {"single": 4000, "multi": 2000}  # of each worker
SETTINGS = TrainConfig(data="reduced", evaluate_every=20)
QUERY_ROWS, QUERY_SETTINGS = 10**6, 1000
QUERY_COLUMNS = ["m", "mu_norm", "final_ood_accuracy"]
REPEATS = 5


def check() -> None:
    """Rows equal single runs, or nothing is timed."""
    plan = sweep.make_plan(SETTINGS.replace(epochs=40), grid={"modality": ["both"]}, seeds=3)
    with tempfile.TemporaryDirectory() as folder:
        sweep.run_sweep(plan, folder)
        rows = sweep.load(folder).to_pylist()
    for row in rows:
        run = train(plan.config(row["run_id"]))
        for name in ("loss", "ood_accuracy", "signal", "noise"):
            np.testing.assert_array_equal(np.array(row[name], np.float32), getattr(run, name))


def end_to_end(modality: str, workers: int) -> dict[str, Any]:
    """Runs per second of a whole sweep, and the share of the cores' time in training."""
    runs = RUNS[modality] * workers
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        plan = sweep.make_plan(SETTINGS.replace(modality=modality), seeds=runs)
        result = sweep.run_sweep(plan, folder, policy=sweep.Policy(workers=workers))
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    assert result.counts == {"finished": runs}
    return {
        "op": "sweep",
        "modality": modality,
        "runs": runs,
        "workers": result.workers,
        "seconds": round(seconds, 3),
        "runs_per_s": round(runs / seconds, 2),
        "engine_share": round(result.busy / (seconds * result.workers), 4),
        "bytes_per_run": round(size / runs),
    }


def query() -> dict[str, Any]:
    """Time of a grouped mean over a million rows whose curves are there but not read."""
    each = QUERY_ROWS // QUERY_SETTINGS
    plan = sweep.make_plan(
        SETTINGS.replace(epochs=20),
        grid={"m": list(range(1, 26)), "mu_norm": np.linspace(0.1, 4.0, 40).tolist()},
        seeds=each,
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        made = _fabricate(plan, Path(folder))
        written = time.perf_counter() - started
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            table = sweep.load(folder, QUERY_COLUMNS)
            groups = table.group_by(["m", "mu_norm"]).aggregate([("final_ood_accuracy", "mean")])
            times.append(time.perf_counter() - started)
        assert (table.num_rows, groups.num_rows) == (QUERY_ROWS, QUERY_SETTINGS)
    return {
        "op": "sweep_query",
        "rows": QUERY_ROWS,
        "parts": made,
        "seconds": round(float(np.median(times)), 4),
        "write_seconds": round(written, 2),
    }


def _fabricate(plan: sweep.Plan, folder: Path) -> int:
    """A store of made-up numbers: only its size matters here."""
    store, schema = Store(folder), part_schema("float32")
    store.prepare()
    write_plan(plan, folder)
    draw = np.random.default_rng(0)
    told = provenance(1)
    for shard in range(plan.shards):
        runs = plan.runs_of(shard)
        columns = setting_columns(plan, runs)
        columns["status"] = pa.array(["finished"] * len(runs))
        columns["diverged_at"] = pa.nulls(len(runs), pa.int32())
        columns["error"] = pa.nulls(len(runs), pa.string())
        columns["computed_on"] = pa.array(["nowhere"] * len(runs))
        for name in CURVES:
            values = draw.random((len(runs), 21), np.float32)
            columns[name] = list_column(list(values), schema.field(name).type)
            columns[f"final_{name}"] = pa.array(values[:, -1].astype(float))
        store.publish(plan, shard, Rows(pa.table(columns, schema), {}, 0.0), told)
    return plan.shards


def measure() -> Iterator[dict[str, Any]]:
    """Every row, the correctness check first."""
    check()
    cores = len(os.sched_getaffinity(0))
    for modality in RUNS:
        for workers in sorted({1, cores}):
            yield end_to_end(modality, workers)
    yield query()


def main() -> None:
    """Print and, with --json, keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    told = record.environment()
    rows = []
    for row in measure():
        print(json.dumps(row))
        rows.append(row | told)
    if arguments.json:
        record.append(arguments.json, rows)


if __name__ == "__main__":
    main()

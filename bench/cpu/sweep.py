"""Sweeps end to end: runs a second, the share of it that is training, a query on a million rows.

`python -m bench.cpu.sweep [--json FILE] [--short | --quick]`; where installed, `python -m
mmcl_fast.bench.cpu.sweep`.

Planning, starting the workers, data, training, evaluation every 20 epochs, Parquet: the paper's
size, reduced data, one worker and one per core, wall time. Then a store of a million rows, and the
time of a grouped query on it. Rows of the sweep are first compared with single runs, bit for bit.
*times eager* takes one process of tuned eager PyTorch for each worker, which makes its data with
torch and keeps nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mmcl_fast import TrainConfig, sweep, train
from mmcl_fast.operating_system.processors import usable_cpus
from mmcl_fast.sweep.store.plan_file import write_plan
from mmcl_fast.sweep.store.schema import CURVES, Rows, list_column, part_schema, setting_columns
from mmcl_fast.sweep.store.store import Store, provenance

# Relative, so that it runs from a checkout and as mmcl_fast.bench alike.
from .. import record
from ..arguments import make_parser
from ..peers.registry import usable
from ..peers.training import eager_losses
from .end_to_end import eager_s
from .train import EAGER

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


def end_to_end(modality: str, workers: int, runs: int) -> dict[str, Any]:
    """Runs per second of a whole sweep, and the share of the cores' time in training."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        plan = sweep.make_plan(SETTINGS.replace(modality=modality), seeds=runs)
        result = sweep.run_sweep(plan, folder, policy=sweep.Policy(workers=workers))
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    assert result.counts == {"finished": runs}
    return {
        "op": "sweep",
        "variant": f"mmcl sweep, {workers} worker{'s' * (workers > 1)}",
        "settings": {"modality": modality, "runs": runs, "workers": result.workers},
        "seconds": round(seconds, 3),
        "wall_ms_per_run": {"p50": round(1e3 * seconds / runs, 4)},
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
        made = fabricate(plan, Path(folder))
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
        "variant": "group_by of pyarrow",
        "settings": {"rows": QUERY_ROWS, "groups": QUERY_SETTINGS},
        "parts": made,
        "seconds": round(float(np.median(times)), 4),
        "write_seconds": round(written, 2),
    }


def fabricate(plan: sweep.Plan, folder: Path) -> int:
    """A store of made-up numbers: only its size matters here."""
    store, schema = Store(folder), part_schema("float32")
    store.prepare()
    write_plan(plan, folder)
    draw = np.random.default_rng(0)
    metadata = provenance(1)
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
        store.publish(plan, shard, Rows(pa.table(columns, schema), {}, 0.0), metadata)
    return plan.shards


def measure(share: int, peers: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """Every row, the correctness check first.

    Args:
        share: Each sweep has one of so many of `RUNS`; with 1 the query is asked as well, whose
            store takes minutes to make.
        peers: Names of peers; None: all.
    """
    check()
    eager = None
    if usable({EAGER: None}, peers):
        torch.set_num_threads(1)
        cfg = TrainConfig(device="cpu", evaluate_every=0)
        eager = eager_s(eager_losses, cfg, epochs=20)
    cores = usable_cpus()
    for modality, runs in RUNS.items():
        for workers in sorted({1, cores} if share == 1 else {cores}):
            row = end_to_end(modality, workers, runs * workers // share)
            if modality == "single" and eager is not None:
                row[f"times {EAGER}"] = round(row["runs_per_s"] * eager / workers, 2)
            yield row
    if share == 1:
        yield query()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; a row that is not its single run ends it before any timing."""
    args = make_parser("sweep", __doc__).parse_args(arguments)
    before = record.environment()
    rows = []
    for row in measure(40 if args.quick else 5 if args.short else 1, args.peers):
        print(" ".join(f"{k}={v}" for k, v in row.items()))
        rows.append({**row, **before})
    if args.json:
        record.append(args.json, rows)
    return 0


__all__ = ["check", "end_to_end", "fabricate", "main", "measure", "query"]

if __name__ == "__main__":
    sys.exit(main())

"""A step of `bench.gpu`: `mmcl sweep` from the command line to the last Parquet file.

Wall time of the whole command at two sizes, start of the interpreter and of the workers included;
the difference of both is the rate of a long sweep. Rows of a first, small sweep are compared with
single runs, bit for bit, before anything is timed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mmcl_fast.sweep import load
from mmcl_fast.training import train

from .timing import CUDA, DRY, Report, Row
from .trajectory import PAPER

SETTINGS = PAPER.replace(evaluate_every=20, device=CUDA.type)
RUNS = (4,) if DRY else (2112, 33792)  # 2 and 32 batches of the trajectory kernel
CHECKED = 3
WORKERS = (1,) if DRY else (1, 2)
FLAGS = ("data", "n", "m", "d", "epochs", "n_test", "evaluate_every", "device")
SPARE_S = 10.0


def gate_sweep(report: Report) -> None:
    """Rows of a sweep are those of single runs."""
    with tempfile.TemporaryDirectory() as folder:
        _command(CHECKED, 1, folder)
        table = load(folder, ["seed", "loss", "ood_accuracy"])
    wrong = []
    for row in table.to_pylist():
        run = train(SETTINGS.replace(seed=row["seed"]))
        same = row["loss"] == run.loss.tolist()
        accuracy = [x for x in run.ood_accuracy.tolist() if x == x]
        stored = [x for x in row["ood_accuracy"] if x is not None and x == x]
        if not same or accuracy != stored:
            wrong.append(row["seed"])
    right = not wrong and table.num_rows == CHECKED
    report.add("gate_sweep", "mmcl sweep", {"runs": CHECKED}, wrong=wrong, ok=right)


def sweep(report: Report) -> None:
    """Seconds of whole commands, and the rate between two sizes."""
    for workers in WORKERS:
        seconds: dict[int, float] = {}
        for runs in RUNS:
            settings = {"runs": runs, "workers": workers}
            row = report.attempt("sweep", "mmcl sweep", settings,
                                 lambda r=runs, w=workers: _timed(r, w), spare=SPARE_S)  # type: ignore[misc]  # fmt: skip
            if row is not None:
                seconds[runs] = row["seconds"]
        if len(seconds) == 2:
            (few, early), (many, late) = sorted(seconds.items())
            report.add("sweep", "mmcl sweep, beyond its start", {"runs": many - few,
                       "workers": workers}, runs_per_s=(many - few) / (late - early))  # fmt: skip


def _timed(runs: int, workers: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        _command(runs, workers, folder)
        seconds = time.perf_counter() - begin
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    return {
        "seconds": round(seconds, 3), "runs_per_s": runs / seconds, "bytes_per_run": size / runs,
        "epochs": SETTINGS.epochs, "evaluate_every": SETTINGS.evaluate_every,
    }  # fmt: skip


def _command(runs: int, workers: int, folder: str) -> None:
    flags = [x for f in FLAGS for x in (f"--{f.replace('_', '-')}", str(getattr(SETTINGS, f)))]
    command = ["sweep", *flags, "--seeds", str(runs), "--workers", str(workers), "--out", folder]
    done = subprocess.run(
        [sys.executable, "-m", "mmcl_fast.cli", *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else "no message")


__all__ = ["gate_sweep", "sweep"]

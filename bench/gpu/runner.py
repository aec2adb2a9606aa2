"""Runs the steps of `bench.gpu`: first what may run together, then timings with nothing beside.

Every step is a process with a time limit. It appends its measurements to the results itself,
row by row, so a run that is ended leaves what it has measured.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from mmcl_fast.operating_system.processes import kill_session
from mmcl_fast.operating_system.processors import usable_cpus

from .. import record
from .plan import DRY_RUN, LIMIT_S, Step, needed

TAIL_LINES = 15  # of a failed step's output, kept in its record
NAMED = 20  # failed tests that a record names
NO_TESTS = 5  # pytest's exit status where a file or a part of it has none
GREEN = ("ok", "unfinished")  # unfinished: tests whose time was over and of which none had failed
# Of the processes of a dry run: the CPU and Triton's interpreter stand for the GPU.
DRY_VARIABLES = {
    DRY_RUN: "1", "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
}  # fmt: skip
Row = dict[str, Any]


def run_all(
    steps: Sequence[Step],
    run: Callable[[Step, float], Row],
    *,
    clock: Callable[[], float] = time.monotonic,
    limit: float = LIMIT_S,
    workers: int | None = None,
    even_if_red: bool = False,
) -> dict[str, Row]:
    """Run the steps within the limit; what became of each, by name.

    Args:
        steps: In order.
        run: Runs a step for at most so many seconds; its status.
        clock: Seconds.
        limit: Seconds for everything.
        workers: Processes at a time of those that run together; default: by the cores.
        even_if_red: Run also what a red step vouches for; its status says so.
    """
    begin = clock()
    status: dict[str, Row] = {}

    def left_to(step: Step, until: float) -> Row:
        red = [name for name in needed(step, list(status)) if status[name]["status"] not in GREEN]
        left = min(step.seconds, until - clock())
        if red and not even_if_red:
            return {"status": "skipped", "reason": f"needs {', '.join(red)}"}
        if left < 1:
            return {"status": "skipped", "reason": "no time was left"}
        return run(replace(step, red=tuple(red)), left)

    for together, group in groupby(steps, lambda step: step.together):
        batch = list(group)
        if not together:
            for step in batch:
                status[step.name] = left_to(step, begin + limit)
            continue
        until = min(begin + limit, clock() + max(step.seconds for step in batch))
        with ThreadPoolExecutor(workers or _workers()) as pool:
            statuses = pool.map(left_to, batch, [until] * len(batch))
            status |= dict(zip([step.name for step in batch], statuses, strict=True))
    return status


def _workers() -> int:
    """Two more than there are cores; many more would not fit into the device's memory."""
    return usable_cpus() + 2


_running: set[int] = set()
_lock = threading.Lock()


def end_all() -> None:
    """End what still runs; for a run that is ended itself."""
    with _lock:
        for pid in _running:
            kill_session(pid)


def run_process(command: Sequence[str], seconds: float, **variables: str) -> tuple[int | None, str]:
    """Exit status, None if its time was over, and output of Python in its own process group."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=record.ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
        )  # fmt: skip
        with _lock:
            _running.add(process.pid)
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill_session(process.pid)
            process.wait()
            code = None
        with _lock:
            _running.discard(process.pid)
        log.seek(0)
        return code, log.read()


def run_step(step: Step, seconds: float, out: Path, common: Row) -> Row:
    """Run one step, and append to the results what became of it.

    Args:
        step: The step.
        seconds: After so long it is ended.
        out: Results.
        common: Part of every row: device, versions, commit, date, command.
    """
    begin = time.monotonic()
    if step.red:
        common = {**common, "red": list(step.red)}
    if step.name == "build" and is_built():
        row: Row = {"status": "ok", "seconds": 0.0, "reason": "skipped: built already"}
    else:
        code, output = run_process(
            step.command or _inner(step, seconds, out, common),
            seconds,
            # Processes share the cores: sixteen of sixteen threads each would crawl.
            **({"OMP_NUM_THREADS": "1"} if step.together else {}),
            TORCHINDUCTOR_COMPILE_THREADS="4" if step.together else "1",
            XLA_PYTHON_CLIENT_PREALLOCATE="false",
            **(DRY_VARIABLES if common.get("dry_run") else {}),
        )
        row = {"status": "ok", "seconds": round(time.monotonic() - begin, 1)}
        row |= _judged(step, code, output, seconds)
    settings = {"seconds": step.seconds, "together": step.together}
    named = {"op": "step", "variant": step.name, "settings": settings}
    record.append(out, [{**named, **row, **common}])
    print(f"{step.name:22} {row['status']:10} {row['seconds']:6.1f} s  "
          f"{row.get('reason', '')}".rstrip(), flush=True)  # fmt: skip
    return row


def _inner(step: Step, seconds: float, out: Path, common: Row) -> list[str]:
    name = step.compiles or step.name
    command = ["-m", f"{__package__}.steps", name, "--out", str(out.absolute())]
    command += ["--until", f"{time.monotonic() + seconds:.1f}", "--common", json.dumps(common)]
    return [*command, "--once", step.part] if step.compiles else command


def _judged(step: Step, code: int | None, output: str, seconds: float) -> Row:
    lines = record.pathless(output).splitlines()
    row: Row = {}
    if step.tests:
        row["passed"] = len(re.findall(r"^\S+::.* PASSED", output, re.MULTILINE))
        row["failures"] = sorted(set(re.findall(r"^(\S+::.*?) (?:FAILED|ERROR)\b", output, re.M)))
        row["failures"] = row["failures"][:NAMED]
    if code == 0 or (step.tests and code == NO_TESTS):
        return row | ({"tail": lines[-1:]} if step.command else {})
    row["tail"] = lines[-TAIL_LINES:]
    if code is not None:
        return row | {"status": "failed", "reason": f"exit status {code}"}
    green = step.tests and not row["failures"]
    reason = f"longer than {seconds:.0f} s" + (f", {row['passed']} passed" if step.tests else "")
    return row | {"status": "unfinished" if green else "timeout", "reason": reason}


def is_built() -> bool:
    """Whether this interpreter imports the extension of this checkout, newer than its sources."""
    code = "import mmcl_fast.kernels, mmcl_fast._native as n; print(n.__file__)"
    status, output = run_process(("-c", code), 60)
    extension = Path(output.strip().splitlines()[-1]) if status == 0 and output.strip() else None
    if extension is None or not extension.is_relative_to(record.ROOT):
        return False
    sources = [record.ROOT / "setup.py", *(record.ROOT / "csrc").rglob("*.[hc]*")]
    return extension.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def rows_of(path: Path, begin: int = 0) -> Iterator[Row]:
    """Rows of a results file from an offset, without one cut off where its process was ended."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        file.seek(begin)
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


__all__ = ["GREEN", "end_all", "is_built", "rows_of", "run_all", "run_process", "run_step"]

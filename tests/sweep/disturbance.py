"""Sweeps as processes of their own, to be killed; and what must be true of their stores after."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORKER = "mmcl_fast.sweep.execute.worker"
DEADLINE_S = 150.0
# Ten settings; a hundred seeds of each are some seconds of two cores, time enough to kill.
PAPER = ["--data", "reduced", "--evaluate-every", "20", "--grid", "modality=both"]
PAPER += ["--grid", "mu_norm=1,2,3,4,5"]


def start(arguments: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
    """`mmcl sweep` with these arguments, which an interrupt reaches.

    A shell starts background jobs with interrupts ignored, and their children inherit that.
    """
    command = [sys.executable, "-m", "mmcl_fast.cli", "sweep", *arguments]
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    finally:
        signal.signal(signal.SIGINT, before)


def finish(
    process: subprocess.Popen[bytes], expected: int = 0, deadline_s: float = DEADLINE_S
) -> str:
    """Wait for a sweep to end with an exit status; what it said on stderr."""
    out, err = process.communicate(timeout=deadline_s)
    assert process.returncode == expected, (process.returncode, out, err)
    return err.decode()


def descendants(pid: int, word: str = WORKER) -> list[int]:
    """Processes below a parent whose command line has a word."""
    parent_of, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            lines[int(folder.name)] = (folder / "cmdline").read_text()
            parent_of[int(folder.name)] = int(fields[1])
        except (OSError, ValueError, IndexError):
            continue  # it has ended meanwhile
    below = {pid}
    while grown := {k for k, parent in parent_of.items() if parent in below} - below:
        below |= grown
    return sorted(k for k in below - {pid} if word in lines[k])


def parts(store: Path) -> dict[str, pa.Table]:
    """Rows of every part, without what a file says of its process."""
    return {
        path.name: pq.read_table(path).replace_schema_metadata(None)
        for path in sorted((store / "parts").glob("part-*.parquet"))
    }


def same_parts(ours: dict[str, pa.Table], theirs: dict[str, pa.Table]) -> bool:
    """Whether stores hold the same rows bit for bit; NaN equals NaN of the same bits."""
    return ours.keys() == theirs.keys() and all(_same(ours[k], theirs[k]) for k in ours)


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    return ours.schema.equals(theirs.schema) and _bytes(ours) == _bytes(theirs)


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def kill_workers(
    driver: subprocess.Popen[bytes],
    count: int,
    pause: float,
    choose: random.Random,
    word: str = WORKER,
) -> int:
    """SIGKILL a random worker again and again while the driver lives; how many were hit."""
    hit = 0
    deadline = time.monotonic() + DEADLINE_S
    while hit < count and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(pause)
        alive = descendants(driver.pid, word)
        if alive:
            try:
                os.kill(choose.choice(alive), signal.SIGKILL)
            except ProcessLookupError:
                continue
            hit += 1
    return hit


def wait_for_parts(store: Path, count: int, driver: subprocess.Popen[bytes]) -> None:
    """Wait until some work is done."""
    deadline = time.monotonic() + DEADLINE_S
    while len(list((store / "parts").glob("part-*"))) < count:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def disturb(
    command: Sequence[str], store: Path, kills: int, pause: float, word: str = WORKER
) -> int:
    """Kill half of the workers, the driver, the rest of the workers; how many were hit."""
    choose = random.Random(7)
    driver = start(command)
    wait_for_parts(store, 1, driver)
    hit = kill_workers(driver, kills // 2, pause, choose, word)
    assert driver.poll() is None, "the sweep ended before it was killed"
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    there = len(parts(store))
    again = start(command)
    wait_for_parts(store, there + 1, again)  # its workers are at work, not starting
    hit += kill_workers(again, kills - hit, pause, choose, word)
    assert "resuming" in finish(again)
    return hit

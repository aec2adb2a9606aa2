"""Everything that needs a GPU, in one go: build, tests, correctness gates, timings.

`python -m bench.gpu [--out FILE] [--tune] [--only STEP ...]`, in a checkout, on a CUDA machine; at
most 8 minutes, no network. Every step is a process with a time of its own: one that fails, crashes
or hangs is recorded and the others go on, but what a red gate vouches for is not timed. The exit
status is 0 only if every step succeeded, and 2 without a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Relative, so that it works in a checkout and where installed.
from . import record

LIMIT_S = 480.0
TAIL_LINES = 15  # of a failed step's output, kept in its record
Row = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes:
        name: As in the results and for `--only`.
        seconds: After so long it is ended.
        needs: Steps without whose success it makes no sense.
        command: What to run, or None: the function of this name in `bench/gpu_steps.py`.
        optional: Runs only when asked for.
    """

    name: str
    seconds: float
    needs: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    optional: bool = False


_PIP = (
    "-m",
    "pip",
    "install",
    "--quiet",
    "--no-index",
    "--no-deps",
    "--no-build-isolation",
    "-e",
    ".",
)
STEPS = (
    Step("build", 90, command=_PIP),
    Step("tests", 110, ("build",), ("-m", "pytest", "-m", "gpu", "-q", "-rf", "--tb=line")),
    Step("gate_loss", 20, ("build",)),
    Step("gate_trajectory", 30, ("build",)),
    Step("gate_encoder", 15, ("build",)),
    Step("tune", 50, ("gate_trajectory", "gate_encoder"), optional=True),
    Step("loss", 50, ("gate_loss",)),
    Step("trajectory", 60, ("gate_trajectory",)),
    Step("primal", 35, ("gate_encoder", "gate_loss")),
    Step("data", 15, ("build",)),
)


def plan(steps: Sequence[Step], only: Sequence[str], *, tune: bool) -> list[Step]:
    """The steps to run, in order.

    Args:
        steps: All of them.
        only: Names of those wanted, and what they need is run as well; empty: all.
        tune: Optional ones too.

    Raises: ValueError: A name is none of theirs.
    """
    known = {step.name: step for step in steps}
    for name in only:
        if name not in known:
            raise ValueError(f"only: expected one of {', '.join(known)}, got {name}")
    wanted = set(only) or {step.name for step in steps if tune or not step.optional}
    for step in reversed(steps):  # needs stand before what needs them
        if step.name in wanted:
            wanted.update(step.needs)
    return [step for step in steps if step.name in wanted]


def run_all(
    steps: Sequence[Step],
    run: Callable[[Step, float], tuple[Row, list[Row]]],
    *,
    clock: Callable[[], float] = time.monotonic,
    limit: float = LIMIT_S,
) -> list[Row]:
    """Run the steps within the limit; one row for each, and the rows they leave.

    Args:
        steps: In order.
        run: Runs a step for at most so many seconds; its status row and what it measured.
        clock: Seconds.
        limit: Seconds for everything.
    """
    begin, rows = clock(), []
    status: dict[str, str] = {}
    for step in steps:
        left = limit - (clock() - begin)
        if missing := [name for name in step.needs if status.get(name) != "ok"]:
            found, more = {"status": "skipped", "reason": f"needs {', '.join(missing)}"}, []
        elif left < 1:
            found, more = {"status": "skipped", "reason": f"the {limit:.0f} s are over"}, []
        else:
            found, more = run(step, min(step.seconds, left))
        status[step.name] = found["status"]
        rows.append({"op": "step", "step": step.name, **found})
        rows += [{**row, "step": step.name} for row in more]
        print(f"{step.name:16} {found['status']:8} {found.get('reason', '')}".rstrip(), flush=True)
    return rows


def run_step(step: Step, seconds: float) -> tuple[Row, list[Row]]:
    """Run one step as a process group, and end it when its time is over."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        inner = ("-m", f"{__package__}.gpu_steps", step.name, str(file))
        begin = time.monotonic()
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(
                [sys.executable, *(step.command or inner)],
                cwd=record.ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = None
            log.seek(0)
            tail = log.read().splitlines()[-TAIL_LINES:]
        row: Row = {"status": "ok", "seconds": round(time.monotonic() - begin, 1)}
        if code is None:
            row |= {"status": "timeout", "reason": f"longer than {seconds:.0f} s", "tail": tail}
        elif code:
            row |= {"status": "failed", "reason": f"exit status {code}", "tail": tail}
        elif step.command:
            row["tail"] = tail[-1:]
        return row, _read(file)


def _read(file: Path) -> list[Row]:
    """Rows of a step; the last line may be cut off where its process was ended."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def gpu() -> Row | None:
    """The GPU and what drives it, or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return {
        "gpu": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout else None


def complete(rows: Sequence[Row], device: Mapping[str, Any], environment: Row) -> list[Row]:
    """Rows with everything needed to judge a number."""
    versions = environment["versions"] | {"triton": record.version_of("triton")}
    return [{**row, "device": dict(device), **environment, "versions": versions} for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"), metavar="FILE")
    parser.add_argument("--tune", action="store_true", help="also time other tiles")
    parser.add_argument("--only", nargs="*", default=[], metavar="STEP")
    args = parser.parse_args(arguments)
    try:
        steps = plan(STEPS, args.only, tune=args.tune)
    except ValueError as error:
        print(f"bench.gpu: {error}", file=sys.stderr)
        return 2
    device = gpu()
    if device is None:
        print("bench.gpu: device: expected a usable CUDA device, got none", file=sys.stderr)
        return 2
    environment = record.environment()
    rows = complete(run_all(steps, run_step), device, environment)
    record.append(args.out, rows)
    for row in rows:
        if row["op"] != "step":
            print({k: v for k, v in row.items() if k not in {"device", *environment}})
    return int(any(row["op"] == "step" and row["status"] != "ok" for row in rows))


__all__ = ["LIMIT_S", "STEPS", "Step", "complete", "gpu", "main", "plan", "run_all", "run_step"]

if __name__ == "__main__":
    sys.exit(main())

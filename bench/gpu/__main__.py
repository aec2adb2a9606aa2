"""Everything that needs a GPU, in one go: build, gates and tests, then timings.

`python -m bench.gpu [--out FILE] [--tune] [--sanitize] [--even-if-red] [--only STEP ...]`, in a
checkout, on a CUDA machine; at most 8 minutes; no network. Correctness comes first, in parallel
processes, and so does the compilation of what is timed; then timings, one after another, with
nothing beside them. Every step is a process with a time limit: one that fails, crashes or hangs is
recorded and the others go on, but what a red gate or test vouches for is not timed, unless
`--even-if-red` is given: rows and tables then name what was red. Rows are appended to FILE as they
are found, so a run that is ended keeps what it has measured. The exit status is 0 only if every
step succeeded, and 2 without a CUDA device.

`--dry-run` needs no GPU: gates and timings run one after another on the CPU, kernels in Triton's
interpreter, at tiny sizes. Its rows say `dry_run`, go to a file of their own, and no table takes
them: their times say nothing.
"""

from __future__ import annotations

import argparse
import math
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Relative, so that it works in a checkout and where installed.
from .. import record
from .plan import LIMIT_S, STEPS, Step, dry, plan
from .runner import end_all, rows_of, run_all, run_step

Row = dict[str, Any]


def gpu() -> Row | None:
    """The GPU and what drives it, or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
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


def common_of(device: Mapping[str, Any], environment: Row) -> Row:
    """What every row says, so that its number can be judged."""
    versions = environment["versions"] | {"triton": record.version_of("triton")}
    return {"device": dict(device), **environment, "versions": versions}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: gpu.jsonl")
    parser.add_argument("--tune", action="store_true", help="also time other tiles")
    parser.add_argument("--sanitize", action="store_true", help="also run compute-sanitizer")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="on the CPU, at tiny sizes: whether every step works; default FILE gpu-dry-run.jsonl",
    )  # fmt: skip
    parser.add_argument(
        "--even-if-red", action="store_true",
        help="also time what a red gate or test vouches for; its rows and tables name it",
    )  # fmt: skip
    parser.add_argument("--only", nargs="*", default=[], metavar="STEP")
    args = parser.parse_args(arguments)
    try:
        steps = plan(STEPS, args.only, tune=args.tune, sanitize=args.sanitize)
    except ValueError as error:
        print(f"bench.gpu: {error}", file=sys.stderr)
        return 2
    device = {"gpu": "none, a dry run"} if args.dry_run else gpu()
    if device is None:
        print("bench.gpu: device: expected a usable CUDA device, got none", file=sys.stderr)
        return 2
    common = common_of(device, record.environment())
    if args.dry_run:
        out, common = args.out or Path("gpu-dry-run.jsonl"), {**common, "dry_run": True}
        return run(dry(steps), out, common, limit=math.inf)
    out = args.out or Path("gpu.jsonl")
    return run(steps, out, common, even_if_red=args.even_if_red)


def run(
    steps: Sequence[Step],
    out: Path,
    common: Row,
    *,
    even_if_red: bool = False,
    limit: float = LIMIT_S,
) -> int:
    """Run steps within `limit` seconds, print what they found, say whether every one succeeded."""
    begin = out.stat().st_size if out.exists() else 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    status = run_all(
        steps,
        lambda step, seconds: run_step(step, seconds, out, common),
        even_if_red=even_if_red,
        limit=limit,
    )
    skipped = [name for name, row in status.items() if row["status"] == "skipped"]
    for name in skipped:
        step = {"op": "step", "variant": name, "settings": {}, **status[name]}
        record.append(out, [{**step, **common}])
        print(f"{name:22} skipped    {status[name]['reason']}")
    for row in rows_of(out, begin):
        if row["op"] != "step":
            print({key: value for key, value in row.items() if key not in common})
        elif row.get("failures") or row["status"] in ("failed", "timeout"):
            print(row["variant"], row.get("failures", []), *row.get("tail", []), sep="\n  ")
    return int(any(row["status"] != "ok" for row in status.values()))


def _end(*_: object) -> None:
    end_all()
    sys.exit("bench.gpu: ended")


__all__ = ["LIMIT_S", "common_of", "gpu", "main", "run"]

if __name__ == "__main__":
    sys.exit(main())

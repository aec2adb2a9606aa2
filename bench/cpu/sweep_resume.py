"""Commands on large plans: 10^7 runs planned and written, a store of 10^6 runs resumed.

`python -m bench.cpu.sweep_resume [--json FILE]`. Each case is a process of its own; seconds are
those of the processor, of the command and its workers, imports included (torch among them).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl_fast import TrainConfig, sweep
from mmcl_fast.operating_system.memory import peak_resident_bytes
from mmcl_fast.sweep.store.plan_file import write_plan
from mmcl_fast.sweep.store.store import Store

# Relative, so that it runs from a checkout and as mmcl_fast.bench alike.
from .. import record
from ..arguments import make_parser
from .sweep import fabricate

OP = "sweep_resume"
SEEDS = 1000
BASE = TrainConfig(data="reduced", epochs=20, evaluate_every=20)
GRID = {"m": list(range(1, 26)), "mu_norm": np.linspace(0.1, 4.0, 40).tolist()}
MILLIONS = TrainConfig(n=30, m=4, epochs=5, data="reduced", evaluate_every=5)
CASES = ("10^7 runs: plan and write", "nothing missing", "one shard missing")


def run_case(case: str, store: Path) -> dict[str, float]:
    """Seconds of the processor, and peak memory, of this process when it has done a case."""
    if case == CASES[0]:
        with tempfile.TemporaryDirectory() as folder:
            write_plan(sweep.make_plan(MILLIONS, seeds=10**7), Path(folder))
    else:
        if case == CASES[2]:
            Store(store).part(500).unlink()
        plan = sweep.make_plan(BASE, grid=GRID, seeds=SEEDS)
        result = sweep.run_sweep(plan, store, policy=sweep.Policy(workers=1))
        assert result.computed == (plan.shard_size(500) if case == CASES[2] else 0)
    used = os.times()
    return {
        "seconds": used.user + used.system + used.children_user + used.children_system,
        "peak, GiB": peak_resident_bytes() / 2**30,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = make_parser("cpu.sweep_resume", __doc__)
    parser.add_argument("--case", nargs=2, metavar=("CASE", "STORE"), help="print one case's JSON")
    args = parser.parse_args(arguments)
    if args.case:
        case, store = args.case
        sys.stdout.write(json.dumps(run_case(case, Path(store))) + "\n")
        return 0
    before = record.environment()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        plan = sweep.make_plan(BASE, grid=GRID, seeds=SEEDS)
        parts = fabricate(plan, Path(folder))
        for case in CASES:
            command = [sys.executable, "-m", __spec__.name, "--case", case, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = {k: float(f"{v:.3g}") for k, v in json.loads(done.stdout).items()}
            runs = 10**7 if case == CASES[0] else len(plan)
            settings = {"runs": runs, "parts": parts}
            rows.append({"op": OP, "variant": case, "settings": settings, **found} | before)
            print(case, *(f"{k}={v}" for k, v in found.items()), flush=True)
    if args.json:
        record.append(args.json, rows)
    return 0


__all__ = ["CASES", "OP", "main", "run_case"]

if __name__ == "__main__":
    sys.exit(main())

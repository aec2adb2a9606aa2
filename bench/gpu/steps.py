"""The steps of `python -m bench.gpu`, one a process: `python -m bench.gpu.steps STEP --out FILE`.

A step appends a row to FILE for everything it finds, as soon as it is found, and exits with 1 if
one is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from . import gram, long_features, loss, primal, sweep, trajectory, tune, typical
from .timing import CUDA, DRY, Report, Row, product_tflops


def product(report: Report) -> None:
    """What this GPU can do: dense products and a copy."""
    for dtype in ("bfloat16", "float32"):
        report.attempt("product", f"product, {dtype}", {"size": 8192, "dtype": dtype},
                       lambda name=dtype: product_tflops(report, getattr(torch, name)))  # type: ignore[misc]  # fmt: skip

    def copied() -> Row:
        here = torch.randn(1 << (10 if DRY else 30), device=CUDA)
        there = torch.empty_like(here)
        timed = report.timed(lambda: there.copy_(here), seconds=0.5)
        return {**timed, "gb_per_s": 2e-6 * here.nbytes / timed["ms"]["p50"]}

    report.attempt("product", "copy", {"bytes": 1 << 32}, copied)


def data(report: Report) -> None:
    """Normals of the stream on the device, beside torch's."""
    from mmcl_fast.kernels.normal import normal_fill

    out = torch.empty(1, *((16, 32) if DRY else (8192, 16384)), device=CUDA)
    for name, call in (
        ("mmcl_fast", lambda: normal_fill(out, seed=1, tag=1)),
        ("torch normal_", lambda: out.normal_()),
        ("zero_", lambda: out.zero_()),
    ):

        def measured(call: Callable[[], object] = call) -> Row:
            timed = report.timed(call, seconds=0.7)
            return {**timed, "gnumbers_per_s": 1e-6 * out.numel() / timed["ms"]["p50"]}

        report.attempt("data", name, {"numbers": out.numel()}, measured)


def steps() -> dict[str, Callable[[Report], None]]:
    """All steps that are functions, by name."""
    return {
        f.__name__: f
        for f in (product, data, loss.gate_loss, loss.loss,
                  primal.gate_primal, primal.primal, trajectory.gate_trajectory,
                  trajectory.trajectory, gram.gram, tune.tune,
                  typical.gate_typical, typical.typical, long_features.gate_long,
                  long_features.long, sweep.gate_sweep, sweep.sweep)
    }  # fmt: skip


def part_of(text: str) -> tuple[int, int]:
    """K/N as two numbers."""
    part, _, parts = text.partition("/")
    return int(part), int(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a step."""
    parser = argparse.ArgumentParser(prog="bench.gpu.steps")
    parser.add_argument("step", choices=steps())
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--common", type=json.loads, default={})
    parser.add_argument("--until", type=float, default=math.inf)
    parser.add_argument("--once", type=part_of, metavar="K/N")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    report = Report(args.out, args.common, until=args.until, once=args.once)
    steps()[args.step](report)
    return int(report.failed)


__all__ = ["data", "main", "product", "steps"]

if __name__ == "__main__":
    sys.exit(main())

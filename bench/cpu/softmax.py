"""Nanoseconds an element of the native passes over scores, beside what torch takes for the same.

`python -m bench.cpu.softmax [--json FILE] [--quick]`; where installed, `python -m
mmcl_fast.bench.cpu.softmax`.

One thread, CPU time, variants interleaved. Of small blocks a variant makes several calls in
succession, so that it finds its block where the matrix product before it would have left it: in
the cache. Ours write where they read, into blocks of their own, but for *statistics*.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcl_fast import _native

# Relative, so that both commands above work; as `bench.*` these would be banned imports.
from .. import record
from ..timing.measure import Quantiles, interleaved, paired_ratio, pin, single_thread

ROUNDS = 31
ELEMENTS = 2**23  # at least so many pass in one measurement
SIZES = ((512, 2048), (512, 32768), (128, 8192))
TORCH_ROWS, TORCH_COLUMNS = "torch, rows", "torch, columns"
TORCH_SOFTMAX, TORCH_SOFTPLUS = "torch.softmax, rows", "torch, softplus"
PEERS = {"rows": TORCH_ROWS, "columns": TORCH_COLUMNS, "softplus": TORCH_SOFTPLUS}
Variants = Mapping[str, Callable[[], object]]
Row = dict[str, Any]


def torch_terms(
    scores: Tensor, row_max: Tensor, row_sum: Tensor, axis: int
) -> Callable[[], object]:
    """Maximum, difference, power, threshold and sum as passes of their own, nothing allocated."""
    out = torch.empty_like(scores)
    tops = row_max.unsqueeze(axis)

    def run() -> None:
        torch.amax(scores, dim=axis, out=row_max)
        torch.sub(scores, tops, out=out).exp2_()
        torch.threshold_(out, 2.0**-100, 0.0)
        torch.sum(out, dim=axis, out=row_sum)

    return run


def torch_softplus(scores: Tensor, row_sum: Tensor) -> Callable[[], object]:
    """Sigmoids and row totals of log(1 + e^x), each by torch's own function."""
    sigmoid, terms = torch.empty_like(scores), torch.empty_like(scores)

    def run() -> None:
        torch.sigmoid(scores, out=sigmoid)
        torch.logaddexp(scores, scores.new_zeros(()), out=terms)
        torch.sum(terms, dim=1, out=row_sum)

    return run


def ours(scores: Tensor) -> Variants:
    """The passes on blocks of their own; a block of terms is as good a block of scores."""
    c, m = scores.shape
    kinds = ("rows", "columns", "weights", "both weights", "softplus")
    blocks = {kind: scores.clone().numpy() for kind in kinds}
    top_i, total_i = torch.zeros(c).numpy(), torch.ones(c).numpy()
    top_j, total_j = torch.zeros(m).numpy(), torch.ones(m).numpy()
    fixed, rows, columns = scores.numpy(), (top_i, total_i), (top_j, total_j)
    n = _native
    return {
        "rows": lambda: n.softmax_rows(blocks["rows"], blocks["rows"], *rows, threads=1),
        "rows, statistics": lambda: n.softmax_rows(fixed, None, *rows, threads=1),
        "columns": lambda: n.softmax_columns(
            blocks["columns"], blocks["columns"], *columns, threads=1
        ),
        "columns, statistics": lambda: n.softmax_columns(fixed, None, *columns, threads=1),
        "both, statistics": lambda: n.softmax_both(fixed, *rows, *columns, threads=1),
        "weights": lambda: n.softmax_weights(blocks["weights"], *rows, None, None, threads=1),
        "both weights": lambda: n.softmax_weights(
            blocks["both weights"], *rows, *columns, threads=1
        ),
        "softplus": lambda: n.softplus_rows(blocks["softplus"], total_i, threads=1),
    }


def repeated(call: Callable[[], object], calls: int) -> Callable[[], None]:
    """`calls` calls as one."""

    def run() -> None:
        for _ in range(calls):
            call()

    return run


def passes(c: int, m: int, rounds: int) -> list[Row]:
    """All passes on [c, m] scores: nanoseconds an element, and torch's time over ours."""
    scores = torch.randn(c, m, generator=torch.Generator().manual_seed(1)) * 10
    top_i, top_j, total_i, total_j = torch.zeros(c), torch.zeros(m), torch.ones(c), torch.ones(m)
    out = torch.empty_like(scores)
    variants = {
        **ours(scores),
        TORCH_ROWS: torch_terms(scores, top_i, total_i, 1),
        TORCH_COLUMNS: torch_terms(scores, top_j, total_j, 0),
        TORCH_SOFTMAX: lambda: torch.softmax(scores, dim=1, out=out),
        TORCH_SOFTPLUS: torch_softplus(scores, total_i),
    }
    calls = -(-ELEMENTS // (c * m))
    seconds = interleaved({k: repeated(v, calls) for k, v in variants.items()}, rounds)
    target = _native.active_target()
    settings = {"rows": c, "columns": m, "target": target}
    settings |= {"threads": 1, "rounds": rounds, "calls": calls}
    rows = []
    print(f"\n[{c}, {m:,}] scores, {target}, one thread, CPU time")
    print(f"{'':24}{'ns an element':>14}{'torch / ours':>14}")
    for name, samples in seconds.items():
        row: Row = {"op": "softmax", "variant": name, "settings": settings}
        row["ns_an_element"] = Quantiles.of(samples).to_dict(scale=1e9 / (c * m * calls))
        peer = PEERS.get(name.split(",")[0])
        times = ""
        if peer and name not in PEERS.values():
            row["times_torch"] = round(paired_ratio(seconds[peer], samples), 2)
            times = f"{row['times_torch']:14.2f}"
        print(f"{name:24}{row['ns_an_element']['p50']:14.3f}{times}")
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; confines the process to one CPU on its way."""
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="bench.cpu.softmax", description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the rows to this file")
    parser.add_argument("--quick", action="store_true", help="the smallest size, 3 rounds: a trial")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    before = record.environment()
    pin()
    rows: list[Row] = []
    for c, m in SIZES[:1] if args.quick else SIZES:
        rounds = ROUNDS if c * m <= ELEMENTS else ROUNDS // 4
        rows += passes(c, m, 3 if args.quick else rounds)
    print(f"\nload before {before['load_1min']}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["main", "passes"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())

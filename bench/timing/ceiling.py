"""Ceilings of this machine: measured rates of matrix products and of memory.

`python -m bench.timing.ceiling [--json FILE]`; where installed, `python -m
mmcl_fast.bench.timing.ceiling`. One thread, CPU time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from mmcl_fast.losses.torch_backend.matmul import product

from .. import record
from ..arguments import make_parser
from .measure import Quantiles, interleaved, single_thread

SIZE = 1536
BYTES = 2**27  # beyond any cache


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    args = make_parser("ceiling", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    before = record.environment()
    x, y = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    a, b = x.numpy(), y.numpy()
    here, there = torch.zeros(BYTES // 4), torch.zeros(BYTES // 4)
    calls: Mapping[str, Callable[[], object]] = {
        "torch.mm": lambda: torch.mm(x, y),
        "numpy.matmul": lambda: np.matmul(a, b),
        "mmcl_fast's choice of product": lambda: product(x, y),
        "copy": lambda: there.copy_(here),
    }
    seconds = interleaved(calls, 3 if args.quick else 9)
    best = {name: Quantiles.of(s).p20 for name, s in seconds.items()}
    moved = 2 * BYTES / best.pop("copy") / 1e9
    fastest = min(best, key=lambda name: best[name])
    row = {
        "op": "ceiling",
        "variant": fastest,
        "settings": {"size": SIZE, "bytes": BYTES, "dtype": "float32", "threads": 1},
        "gflop_s": round(2 * SIZE**3 / best[fastest] / 1e9, 1),
        "gbyte_s": round(moved, 2),
    }
    print(f"{row['gflop_s']} GFLOP/s by {fastest}, {row['gbyte_s']} GB/s by a copy, one thread")
    if args.json:
        record.append(args.json, [{**row, **before}])
    return 0


__all__ = ["main"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())

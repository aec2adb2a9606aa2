"""Wall time of starting the command line, of the import, and of Figure 1.

`python -m bench.cpu.startup [--json FILE] [--short | --quick]`; fresh processes, interleaved.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# Relative, so that it runs from a checkout and as mmcl_fast.bench alike.
from .. import record
from ..arguments import make_parser
from ..timing.measure import Quantiles, interleaved

COMMANDS = {
    "mmcl --help": ["-m", "mmcl_fast.cli", "--help"],
    "import torch": ["-c", "import torch"],
    "import torch, mmcl_fast.info_nce": ["-c", "import torch, mmcl_fast; mmcl_fast.info_nce"],
}
FIGURE = "mmcl figure1 --seeds 10"


def start(arguments: Sequence[str]) -> None:
    """Run a fresh Python; raises CalledProcessError with its output if it fails."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)


def draw_figure() -> None:
    """The figure of ten seeds, in a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "figure")
        start(["-m", "mmcl_fast.cli", "figure1", "--seeds", "10", "--out", out])


def measure(rounds: int, figures: int) -> list[dict[str, Any]]:
    """Rows of a results file."""
    calls: Mapping[str, Callable[[], None]] = {
        name: partial(start, arguments) for name, arguments in COMMANDS.items()
    }
    seconds = interleaved(calls, rounds, clock=time.perf_counter)
    alone, both = (seconds[k] for k in list(COMMANDS)[1:])
    seconds["mmcl_fast added to torch"] = [b - a for a, b in zip(alone, both, strict=True)]
    seconds[FIGURE] = []
    for _ in range(figures):  # no call beforehand: a user's first figure counts
        begin = time.perf_counter()
        draw_figure()
        seconds[FIGURE].append(time.perf_counter() - begin)
    return [
        {
            "op": "startup",
            "variant": name,
            "settings": {"rounds": len(samples), "threads": "default"},
            "wall_ms": Quantiles.of(samples).to_dict(scale=1e3, digits=1),
        }
        for name, samples in seconds.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    args = make_parser("startup", __doc__).parse_args(arguments)
    before = record.environment()
    rows = measure(*((3, 1) if args.quick or args.short else (11, 2)))
    print(f"{'wall ms':34}{'p20':>9}{'p50':>9}{'p80':>9}")
    for row in rows:
        t = row["wall_ms"]
        print(f"{row['variant']:34}{t['p20']:9.0f}{t['p50']:9.0f}{t['p80']:9.0f}")
    print(f"load before {before['load_1min']}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["COMMANDS", "draw_figure", "main", "measure", "start"]

if __name__ == "__main__":
    sys.exit(main())

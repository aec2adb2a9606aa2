"""`mmcl report`: one HTML file to explore a store in a browser."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mmcl_fast.report import write_report


def report_command(store: Path, out: Path, where: Sequence[str]) -> int:
    """Write a report, and say what is in it.

    Returns: Exit status 0.
    """
    started = time.perf_counter()
    report = write_report(store, out, where=where)
    seconds = time.perf_counter() - started
    sys.stdout.write(
        f"wrote {out}: {report.runs} runs of {report.settings} settings, curves at "
        f"{report.epochs} epochs and of {report.run_curves} single runs; "
        f"{out.stat().st_size / 1e6:.1f} MB in {seconds:.1f} s\n"
    )
    return 0


__all__ = ["report_command"]

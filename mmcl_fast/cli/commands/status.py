"""`mmcl status`: how far a sweep is, from its store alone."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmcl_fast.sweep.store.status import Status, read_status


def status_command(store: Path) -> int:
    """Print a store's status.

    Returns: Exit status: 0 if every row is there and none failed, else 1.
    """
    found = read_status(store)
    table = Table(title=str(store), show_header=False)
    for name, value in _lines(found):
        table.add_row(name, value)
    Console().print(table)
    for reason in found.bad.values():
        sys.stderr.write(f"mmcl: {reason}\n")
    whole = found.done == found.runs and not found.bad and not found.counts.get("failed")
    return 0 if whole else 1


def _lines(found: Status) -> list[tuple[str, str]]:
    lines = [
        ("runs", f"{found.done} of {found.runs} ({found.done / found.runs:.1%})"),
        ("shards", f"{found.parts} of {found.shards}"),
    ]
    lines += [(name, f"{count}") for name, count in sorted(found.counts.items())]
    if found.retried:
        lines.append(("retried after a worker's death", f"{found.retried}"))
    if found.put_away:
        lines.append(("shards put away", ", ".join(map(str, found.put_away))))
    if found.rate is not None:
        lines.append(("rate, last ten minutes of work", f"{found.rate:.1f} runs/s"))
        if found.done < found.runs and found.seconds_left is not None:
            lines.append(("time left at that rate", _duration(found.seconds_left)))
    lines.append(("core time in training", _duration(found.busy_seconds)))
    lines += [("computed on", machine) for machine in found.machines]
    return lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


__all__ = ["status_command"]

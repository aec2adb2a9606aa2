"""`mmcl status`: progress of a sweep, from its store alone."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmcl_fast.sweep.store.status import Status, read_status
from mmcl_fast.terminal import printable

INCOMPLETE, CORRUPT = 1, 2


def status_command(store: Path, *, verify: bool = False) -> int:
    """Print the status of a store.

    Args:
        store: Directory of the store.
        verify: Read and compare all rows, not the files' footers alone.

    Returns: Exit status: 0 if every row is present and none failed, 1 if some are absent or failed,
        2 if the store has files that cannot be used.
    """
    status = read_status(store, verify=verify)
    table = Table(title=printable(str(store)), show_header=False)
    for name, value in _lines(status):
        table.add_row(name, printable(value))
    if verify:
        table.add_row("verified", f"{status.parts} files, every row against the plan")
    Console(markup=False, emoji=False).print(table)
    for reason in status.bad.values():
        sys.stderr.write(f"mmcl: {printable(reason)}\n")
    if status.bad:
        return CORRUPT
    complete = status.done == status.runs and not status.counts.get("failed")
    return 0 if complete else INCOMPLETE


def _lines(status: Status) -> list[tuple[str, str]]:
    lines = [
        ("runs", f"{status.done} of {status.runs} ({status.done / status.runs:.1%})"),
        ("shards", f"{status.parts} of {status.shards}"),
    ]
    lines += [(name, f"{count}") for name, count in sorted(status.counts.items())]
    if status.retried:
        lines.append(("retried after a worker's death", f"{status.retried}"))
    if status.put_away:
        lines.append(("quarantined shards", ", ".join(map(str, status.put_away))))
    if status.rate is not None:
        lines.append(("rate, last ten minutes of work", f"{status.rate:.1f} runs/s"))
        if status.done < status.runs and status.seconds_left is not None:
            lines.append(("time left at that rate", _duration(status.seconds_left)))
    lines.append(("core time in training", _duration(status.busy_seconds)))
    lines += [("computed on", machine) for machine in status.machines]
    return lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


__all__ = ["status_command"]

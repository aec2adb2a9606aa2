"""`mmcl status`: progress of a sweep, from its store alone."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mmcl_fast.sweep.store.drivers import Driver
from mmcl_fast.sweep.store.outlook import Slow
from mmcl_fast.sweep.store.status import Status, StatusReader, read_status
from mmcl_fast.terminal import printable

INCOMPLETE, CORRUPT = 1, 2
WATCH_SECONDS = 2.0
READING_SHARE = 0.2  # of the time, at most, that is spent on reading a large store


def status_command(
    store: Path, *, verify: bool = False, watch: bool = False, as_json: bool = False
) -> int:
    """Print the status of a store.

    Args:
        store: Directory of the store.
        verify: Read and compare all rows, not the files' footers alone.
        watch: Repeat it until every row is there, or nothing goes on: a file is damaged, or what is
            left is quarantined and no driver is at work.
        as_json: Print JSON, one object a line, with the fields of `Status`.

    Returns: Exit status: 0 if every row is present and none failed, 1 if some are absent or failed,
        2 if the store has files that cannot be used.
    """
    if watch:
        status = _watch(store, verify=verify, as_json=as_json)
    else:
        status = read_status(store, verify=verify)
        _print(status, store, verify=verify, as_json=as_json)
    for reason in status.bad.values():
        sys.stderr.write(f"mmcl: {printable(reason)}\n")
    if status.bad:
        return CORRUPT
    if watch and status.is_stuck:
        sys.stderr.write(
            "mmcl: expected a sweep at work, got none, and all shards that are left quarantined "
            f"({', '.join(map(str, status.put_away))}); run the sweep again to retry them\n"
        )
    complete = status.done == status.runs and not status.counts.get("failed")
    return 0 if complete else INCOMPLETE


def _watch(store: Path, *, verify: bool, as_json: bool) -> Status:
    """Show the status again and again, in one place of a terminal; return the last one."""
    console, reader = Console(markup=False, emoji=False), StatusReader(store, verify=verify)
    if as_json or not console.is_terminal:
        while True:
            status, pause = _timed(reader)
            _print(status, store, verify=verify, as_json=as_json)
            sys.stdout.flush()
            if _ended(status):
                return status
            time.sleep(pause)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            status, pause = _timed(reader)
            live.update(_table(status, store, verify=verify), refresh=True)
            if _ended(status):
                return status
            time.sleep(pause)


def _ended(status: Status) -> bool:
    return status.done >= status.runs or bool(status.bad) or status.is_stuck


def _timed(reader: StatusReader) -> tuple[Status, float]:
    """The status, and how long to wait before it is read again."""
    started = time.monotonic()
    status = reader.read()
    return status, max(WATCH_SECONDS, (time.monotonic() - started) / READING_SHARE)


def _print(status: Status, store: Path, *, verify: bool, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(asdict(status)) + "\n")
    else:
        Console(markup=False, emoji=False).print(_table(status, store, verify=verify))


def _table(status: Status, store: Path, *, verify: bool) -> Table:
    # Cells are text, in which brackets are no markup.
    table = Table(title=Text(printable(str(store))), show_header=False)
    for name, value in _lines(status):
        table.add_row(name, Text(printable(value)))
    if verify:
        table.add_row("verified", f"{status.parts} files, every row against the plan")
    return table


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
    lines += _outlook(status)
    lines.append(("core time in training", _duration(status.busy_seconds)))
    lines += [("computed on", machine) for machine in status.machines]
    lines += [("slowest runs", _slow(slow)) for slow in status.slowest]
    return lines


def _outlook(status: Status) -> list[tuple[str, str]]:
    """Who is at work, and how long it will take."""
    if status.done >= status.runs:
        return []
    lines = []
    live = [driver for driver in status.drivers if not driver.is_lost(status.now)]
    lines += [("at work", _at_work(driver)) for driver in live]
    lines += [
        ("not heard of", f"{driver.name} for {_duration(status.now - driver.written)}")
        for driver in status.drivers
        if driver not in live
    ]
    silent = [(d, work) for d in live for work in d.work if work.is_silent]
    for driver, work in silent:
        told = f"shard {work.shard} of {driver.name}: no sign of life for "
        lines.append(("hung", told + _duration(work.silent or 0.0)))
    if status.seconds_left is not None:
        name = "time left" if live else "time left at that rate"
        lines.append((name, _duration(status.seconds_left)))
    elif live:
        lines.append(("time left", "unknown: a worker is hung" if silent else "unknown"))
    return lines


def _at_work(driver: Driver) -> str:
    longest = max(driver.work, key=lambda work: work.seconds, default=None)
    told = f"{driver.name}: {len(driver.work)} of {driver.workers} workers"
    if longest is None:
        return told
    return f"{told}, longest shard {longest.shard} for {_duration(longest.seconds)}"


def _slow(slow: Slow) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in slow.settings.items())
    return f"{slow.seconds:.3g} s each in shard {slow.shard}: {settings}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


__all__ = ["status_command"]

"""Progress displays: a bar with rate and remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_EVERY_S = 30.0


class Progress(Protocol):
    """A progress display."""

    def advance(self, label: str, done: float) -> None:
        """Set the label of the current work and the number of finished units."""
        ...


class _Lines:
    """A plain line every `LINE_EVERY_S` seconds, for logs."""

    def __init__(self, total: float, unit: str) -> None:
        self._total, self._unit = total, unit
        self._start = self._last_line = time.monotonic()
        self._before: float | None = None

    def advance(self, label: str, done: float) -> None:
        now = time.monotonic()
        if self._before is None:
            # Units finished before a resume do not count towards the rate.
            self._before, self._start = done, now
        if now - self._last_line < LINE_EVERY_S:
            return
        self._last_line = now
        rate = (done - self._before) / (now - self._start) if now > self._start else 0.0
        left = (self._total - done) / rate if rate > 0 else float("inf")
        sys.stderr.write(
            f"{label}: {done:.0f} of {self._total:.0f} {self._unit}, "
            f"{rate:.1f} {self._unit}/s, {left:.0f} s left\n"
        )


@contextmanager
def progress(total: float, unit: str) -> Iterator[Progress]:
    """A progress display of `total` units on standard error.

    Args:
        total: Units of work.
        unit: Name of a unit, in the plural.
    """
    if not sys.stderr.isatty():
        yield _Lines(total, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    class Rate(ProgressColumn):
        def render(self, task: Task) -> str:
            return "" if task.speed is None else f"{task.speed:.0f}/s"

    with RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("starting", total=total, completed=0)

        class _Bar:
            def advance(self, label: str, done: float) -> None:
                bar.update(task, description=label, completed=done)

        yield _Bar()


__all__ = ["Progress", "progress"]

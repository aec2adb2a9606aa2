"""Progress displays: a bar on a terminal, one line in a notebook, lines in a log."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

LINE_EVERY_S = 30.0
NOTEBOOK_EVERY_S = 0.25
NOTEBOOK_SHELL = "ZMQInteractiveShell"  # of Jupyter's kernels


class Progress(Protocol):
    """A progress display."""

    def advance(self, label: str, done: float) -> None:
        """Set the label of the current work and the number of finished units."""
        ...


class _Text:
    """Rate and time left as text."""

    def __init__(self, total: float, unit: str) -> None:
        self._total, self._unit = total, unit
        self._start = time.monotonic()
        self._before: float | None = None

    def text(self, label: str, done: float, now: float) -> str:
        if self._before is None:
            # Units finished before a resume do not count towards the rate.
            self._before, self._start = done, now
        rate = (done - self._before) / (now - self._start) if now > self._start else 0.0
        left = (self._total - done) / rate if rate > 0 else float("inf")
        return (
            f"{label}: {done:.0f} of {self._total:.0f} {self._unit}, "
            f"{rate:.1f} {self._unit}/s, {left:.0f} s left"
        )


class _Lines:
    """A plain line every `LINE_EVERY_S` seconds, for logs."""

    def __init__(self, total: float, unit: str) -> None:
        self._text = _Text(total, unit)
        self._last_line = time.monotonic()

    def advance(self, label: str, done: float) -> None:
        now = time.monotonic()
        text = self._text.text(label, done, now)
        if now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            sys.stderr.write(f"{text}\n")


class _Notebook:
    """One line below the cell, replaced as the work goes on; needs IPython alone, no widgets."""

    def __init__(self, total: float, unit: str) -> None:
        from IPython.display import HTML, display

        self._text, self._shown = _Text(total, unit), 0.0
        self._html: Any = HTML
        self._handle: Any = display(HTML("<code>starting</code>"), display_id=True)
        self._last: tuple[str, float] | None = None

    def advance(self, label: str, done: float) -> None:
        now = time.monotonic()
        text = self._text.text(label, done, now)
        self._last = label, done
        if now - self._shown >= NOTEBOOK_EVERY_S:
            self._shown = now
            self._update(text)

    def close(self) -> None:
        if self._last is not None:
            self._update(self._text.text(*self._last, time.monotonic()))

    def _update(self, text: str) -> None:
        self._handle.update(self._html(f"<code>{html.escape(text)}</code>"))


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; imports nothing."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return type(shell).__name__ == NOTEBOOK_SHELL


@contextmanager
def progress(total: float, unit: str) -> Iterator[Progress]:
    """A progress display of `total` units, on standard error or below the cell of a notebook.

    Args:
        total: Units of work.
        unit: Name of a unit, in the plural.
    """
    if in_notebook():
        shown = _Notebook(total, unit)
        try:
            yield shown
        finally:
            shown.close()
    elif sys.stderr.isatty():
        with _bar(total, unit) as bar:
            yield bar
    else:
        yield _Lines(total, unit)


@contextmanager
def optional_progress(total: float, unit: str, *, shown: bool) -> Iterator[Progress | None]:
    """A progress display if `shown`, else None."""
    with progress(total, unit) if shown else nullcontext() as display:
        yield display


@contextmanager
def _bar(total: float, unit: str) -> Iterator[Progress]:
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


__all__ = ["Progress", "in_notebook", "optional_progress", "progress"]

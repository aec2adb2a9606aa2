"""One attempt at a shard: which runs it trains together, and which of them a death is due to.

From the second attempt on, a worker writes a note of the runs in hand before it trains them. Rows
do not depend on what else is in a batch, so suspects are trained in smaller ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from mmcl_fast.errors import OutputError
from mmcl_fast.files import prepare_directory

T = TypeVar("T")
R = TypeVar("R")

AGAIN = "again"
"""Metadata of a part: the number of its failed rows that the next call computes again."""
# Failures by lack of memory, or by what is outside of the run: a signal, a stopped machine.
PASSING = re.compile(
    r"MemoryError|out of memory|DefaultCPUAllocator|DataError: memory: |\(passing\)"
)


@dataclass(frozen=True)
class Note:
    """What a worker had in hand.

    Attributes:
        first: Position in the shard of the first run.
        last: Position after the last one.
        trained: Runs that the same worker had trained before.
    """

    first: int
    last: int
    trained: int


@dataclass(frozen=True)
class Suspects:
    """Runs of a shard that workers died with, by position, which are trained `width` at a time."""

    first: int
    last: int
    width: int


@dataclass(frozen=True)
class Attempt:
    """How a worker goes about a shard.

    Attributes:
        note: File of its notes; None: it writes none.
        suspects: Runs that are trained in smaller batches, or None.
        given_up: Why a run is not trained, by position.
    """

    note: Path | None = None
    suspects: Suspects | None = None
    given_up: Mapping[int, str] = field(default_factory=dict)

    def results(
        self, batch: Sequence[T], start: int, train: Callable[[Sequence[T]], list[R | str]]
    ) -> list[R | str]:
        """Results of a batch, the runs `start`, `start + 1`, ... of the shard."""
        results: list[R | str] = []
        for first, last in self._pieces(start, start + len(batch)):
            if first in self.given_up:
                results.append(self.given_up[first])
                continue
            self._write_note(first, last)
            results += train(batch[first - start : last - start])
        return results

    def begin(self) -> None:
        """Remove the note of the attempt before, whose runs are not yet in hand."""
        if self.note is not None:
            prepare_directory(self.note.parent)
            self.note.unlink(missing_ok=True)

    def end(self) -> None:
        """Remove the note: nothing is in hand."""
        if self.note is not None:
            self.note.unlink(missing_ok=True)

    def _write_note(self, first: int, last: int) -> None:
        if self.note is None:
            return
        trained = first - sum(k < first for k in self.given_up)
        text = json.dumps({"first": first, "last": last, "trained": trained})
        try:
            self.note.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"{self.note.name}: cannot be written to {self.note.parent} ({error})"
            ) from error

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Ranges of positions that are trained together."""
        edges = {start, stop}
        edges |= {edge for k in self.given_up for edge in (k, k + 1)}
        if self.suspects is not None:
            edges |= set(range(self.suspects.first, self.suspects.last, self.suspects.width))
            edges.add(self.suspects.last)
        inside = sorted(edge for edge in edges if start <= edge <= stop)
        yield from pairwise(inside)


def note_file(store: Path, shard: int) -> Path:
    """File of the notes on a shard."""
    return store / "quarantine" / f"shard-{shard}.note"


def read_note(path: Path) -> Note | None:
    """The note of a worker that died; None: there is none, or no whole one."""
    with suppress(FileNotFoundError, ValueError, TypeError):
        return Note(**json.loads(path.read_text(encoding="utf-8")))
    return None


def forget_notes(store: Path, shards: Sequence[int]) -> None:
    """Remove notes on shards that workers left with an earlier driver."""
    names = {note_file(store, shard).name for shard in shards}
    for path in (store / "quarantine").glob("shard-*.note"):
        if path.name in names:
            path.unlink(missing_ok=True)


def passing(tracebacks: Mapping[int, str]) -> int:
    """How many failures are no property of their runs, so that another call may succeed."""
    return sum(bool(PASSING.search(text.strip().splitlines()[-1])) for text in tracebacks.values())


__all__ = [
    "AGAIN",
    "Attempt",
    "Note",
    "Suspects",
    "forget_notes",
    "note_file",
    "passing",
    "read_note",
]

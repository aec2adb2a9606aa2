"""Samples of a modality, some rows at a time, in pieces that depend on the sizes alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

_PIECE_NUMBERS = 1 << 22  # 16 MiB of float32
_PIECE_ROWS = 256  # fewer slow a matrix product down; and pieces of so many rows start aligned


class SampleRows(Protocol):
    """Noise patches of n samples, [n, d]."""

    def pieces(self, samples: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Rows [c, d] of given samples [k] or of all, with their places among those.

        The rows may be overwritten by the next step.
        """
        ...


class HeldRows:
    """Rows that are held in memory, [n, d]."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def pieces(self, samples: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """See `SampleRows.pieces`."""
        count = len(self._rows) if samples is None else len(samples)
        for part in pieces_of(count, self._rows.shape[1]):
            if samples is None:
                yield part, self._rows[part]
            else:
                yield part, self._rows.index_select(0, samples[part])


def pieces_of(count: int, d: int) -> Iterator[slice]:
    """The pieces that `count` rows of d numbers are cut into."""
    size = piece_rows(count, d)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def piece_rows(count: int, d: int) -> int:
    """Rows of a piece: a multiple of 256, of about 2^22 numbers."""
    return min(count, max(_PIECE_ROWS, _PIECE_NUMBERS // d // _PIECE_ROWS * _PIECE_ROWS))


__all__ = ["HeldRows", "SampleRows", "piece_rows", "pieces_of"]

"""Columns of many values of which few differ: the distinct ones, and a code for each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Column:
    """Values of many rows.

    Attributes:
        values: The distinct values, each of which some row has.
        codes: Index of each row's value, [rows]; of a constant column an array of stride 0.
    """

    values: tuple[Any, ...]
    codes: Codes

    @classmethod
    def constant(cls, value: object, rows: int) -> Column:
        """One value for all rows, in no memory."""
        return cls((value,), np.broadcast_to(np.int32(0), (rows,)))

    @classmethod
    def of(cls, values: Iterable[Any], codes: Codes) -> Column:
        """A column of values that may be equal, or that no row has."""
        index: dict[Any, int] = {}
        place = np.array([index.setdefault(v, len(index)) for v in values], np.int32)
        if len(index) == 1:
            return cls.constant(next(iter(index)), len(codes))
        return cls(tuple(index), place[codes]).compact()

    def compact(self) -> Column:
        """The column without values that no row has."""
        used = np.zeros(len(self.values), bool)
        used[self.codes] = True
        if used.all():
            return self
        kept = np.flatnonzero(used)
        if len(kept) == 1:
            return Column.constant(self.values[kept[0]], len(self.codes))
        renumbered = (np.cumsum(used) - 1).astype(np.int32)
        return Column(tuple(self.values[k] for k in kept), renumbered[self.codes])

    def take(self, rows: npt.NDArray[np.integer]) -> Column:
        """The column of some rows."""
        if len(self.values) == 1:
            return Column.constant(self.values[0], len(rows))
        return Column(self.values, self.codes[rows]).compact()

    def mapped(self, function: Callable[[Any], Any]) -> Column:
        """The column of a function of each value."""
        return Column.of(map(function, self.values), self.codes)


def distinct_rows(columns: Sequence[Column]) -> tuple[npt.NDArray[np.int64], Codes]:
    """The first row of each distinct tuple of values, in order; and each row's tuple, [rows]."""
    rows = len(columns[0].codes)
    key, size = np.zeros(rows, np.int64), 1
    for column in columns:
        if len(column.values) > 1:
            if size * len(column.values) > max(4 * rows, 1 << 16):  # keys below it need no sort
                key, size = _renumbered(key, size)
            key = key * len(column.values) + column.codes
            size *= len(column.values)
    if size == 1:
        return np.zeros(min(rows, 1), np.int64), np.zeros(rows, np.int32)
    key, size = _renumbered(key, size)
    first = np.empty(size, np.int64)
    first[key[::-1]] = np.arange(rows - 1, -1, -1)  # of equal keys the last one is kept
    order = np.argsort(first)
    place = np.empty(size, np.int32)
    place[order] = np.arange(size, dtype=np.int32)
    return first[order], place[key]


def _renumbered(key: npt.NDArray[np.int64], size: int) -> tuple[npt.NDArray[np.int64], int]:
    """Keys as indices of the distinct ones, and the number of these."""
    if size <= max(8 * len(key), 1 << 16):
        used = np.zeros(size, bool)
        used[key] = True
        return (np.cumsum(used) - 1)[key], int(used.sum())
    values, index = np.unique(key, return_inverse=True)
    return index, len(values)


def combined(function: Callable[..., Any], columns: Sequence[Column]) -> Column:
    """The column of a function of several columns, called once for each distinct tuple."""
    rows = len(columns[0].codes)
    first, index = distinct_rows(columns)
    given = [[column.values[k] for k in column.codes[first].tolist()] for column in columns]
    results = map(function, *given)
    if len(first) == 1:
        return Column.constant(next(results), rows)
    return Column.of(results, index)


def joined(one: Column, other: Column) -> tuple[Column, Column]:
    """Both columns with codes of one list of values, of which each may lack some."""
    index = {value: k for k, value in enumerate(one.values)}
    place = np.array([index.setdefault(v, len(index)) for v in other.values], np.int32)
    values = tuple(index)
    return Column(values, one.codes), Column(values, place[other.codes])


def stacked(one: Column, other: Column) -> Column:
    """The rows of both columns, one after the other."""
    one, other = joined(one, other)
    if len(one.values) == 1:
        return Column.constant(one.values[0], len(one.codes) + len(other.codes))
    return Column(one.values, np.concatenate([one.codes, other.codes]))


__all__ = ["Codes", "Column", "combined", "distinct_rows", "joined", "stacked"]

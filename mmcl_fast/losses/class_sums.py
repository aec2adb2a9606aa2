"""Sums over the rows of a class, in O(rows) and without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK = 2**20  # elements that are cast at a time


class ClassCodes(NamedTuple):
    """Labels as 0, 1, 2, ...

    Attributes:
        query: [N], int64.
        key: [M], int64.
        number: Bound of the codes: the number of classes on a CPU, N + M elsewhere.
    """

    query: Tensor
    key: Tensor
    number: int

    @classmethod
    def of(cls, labels: Tensor, key_labels: Tensor) -> ClassCodes:
        """From labels [N] and [M] of one dtype."""
        both = torch.cat([labels, key_labels])
        ordered, order = both.sort()
        codes = torch.zeros(both.shape[0], dtype=torch.int64, device=both.device)
        codes[order[1:]] = (ordered[1:] != ordered[:-1]).cumsum(0)
        number = both.shape[0]
        if both.is_cpu and number:  # elsewhere this would wait for the device
            number = int(codes.max()) + 1
        return cls(codes[: labels.shape[0]], codes[labels.shape[0] :], number)


def sum_by_class(codes: Tensor, rows: Tensor, number: int, scale: Tensor | None = None) -> Tensor:
    """Sums of `rows` [R, D] times `scale` [R] by their codes [R]: [number, D], float64.

    In float64, as the caller subtracts single rows.
    """
    sums = torch.zeros(number, rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in chunks(rows):
        add_rows(sums, codes[part], scaled_rows(rows, part, scale))
    return sums


def scaled_rows(rows: Tensor, part: slice, scale: Tensor | None) -> Tensor:
    """Some rows in float64, times their scale [R]."""
    wide = rows[part].double()
    return wide if scale is None else wide * scale[part, None].double()


def add_rows(sums: Tensor, at: Tensor, rows: Tensor) -> None:
    """In place: sums[at_i] += rows_i, in a fixed order on every device."""
    if sums.is_cpu:
        sums.index_add_(0, at, rows)  # in order; index_put_ is threaded
    else:
        sums.index_put_((at,), rows, accumulate=True)  # sorted; index_add_ has no fixed order


def chunks(rows: Tensor) -> Iterator[slice]:
    """Ranges of rows [R, ...] of at most about a million elements."""
    size = max(1, _CHUNK // max(1, rows[:1].numel()))
    for start in range(0, rows.shape[0], size):
        yield slice(start, min(start + size, rows.shape[0]))


__all__ = ["ClassCodes", "add_rows", "chunks", "scaled_rows", "sum_by_class"]

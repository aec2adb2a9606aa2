"""One set of rows over several ranks: a pair of rows is a score of both, on both of their ranks.

Either rank computes the scores of its rows with the other's, for its own rows. So that a pair's
score is rounded once, both compute the same product: the rows of the lower rank are the queries,
those of the higher one the keys, in copies that begin at the same alignment. At logits of 1e5 two
roundings differ by more than a probability. Ranks with other processors or numbers of threads may
still round differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from mmcl_fast.distributed.gradient_sums import added
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.off_diagonal import Pair, remote_gradients, remote_statistics
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested


class OtherRows(NamedTuple):
    """The rows of one other rank.

    Attributes:
        rows: [m, D].
        part: Where they are in the payload of which they are a part.
        lower: Whether that rank is the lower one.
    """

    rows: Tensor
    part: slice
    lower: bool


def rows_of_ranks(members: Members, ranks: range, rows: Tensor) -> Iterator[OtherRows]:
    """The rows of each rank, from those of several ranks in their order."""
    start = 0
    for rank in ranks:
        part = slice(start, start + members.rows[rank])
        start = part.stop
        yield OtherRows(rows[part], part, rank < members.rank)


def pair_statistics(local: Contrast, other: OtherRows) -> Pair:
    """Sums over another rank's rows for the rows of this one; see `remote_statistics`."""
    of_queries, of_keys = remote_statistics(_tile(local, other))
    if not other.lower:
        return of_queries
    assert of_keys is not None
    return of_keys


def pair_gradients(
    local: Contrast, other: OtherRows, requested: Requested, rows: Pair, other_rows: Pair
) -> Gradients:
    """Gradients of this rank's rows through their pairs with another rank's.

    Args:
        local: Of this rank.
        other: Of the other one.
        requested: Of query and temperature; the latter is that of all these pairs' weights, which
            the other rank has, too.
        rows: (max_score, scale) of this rank's rows; see `remote_gradients`.
        other_rows: Those of the other rank's.
    """
    tile = _tile(local, other)
    if not other.lower:
        return remote_gradients(tile, requested, rows, other_rows)
    assert tile.key is not None
    found = remote_gradients(tile, Requested(key=True), other_rows, rows)
    assert found.key is not None
    temperature = None
    if requested.temperature:
        dots = torch.linalg.vecdot(tile.key.to(local.dtype), found.key)
        temperature = -dots / local.temperature.to(local.dtype)
    return Gradients(query=found.key if requested.query else None, temperature=temperature)


def sum_of_pair_gradients(
    local: Contrast,
    others: Iterator[OtherRows],
    requested: Requested,
    rows: Pair,
    other_rows: Pair,
) -> Gradients:
    """`pair_gradients` of several ranks, whose (max_score, scale) are those of a payload."""
    total = Gradients()
    for other in others:
        theirs = other_rows[0][other.part], other_rows[1][other.part]
        total = added(total, pair_gradients(local, other, requested, rows, theirs))
    return total


def _tile(local: Contrast, other: OtherRows) -> Contrast:
    query, key = (other.rows, local.query) if other.lower else (local.query, other.rows)
    return replace(
        local,
        query=query,
        key=key.to(local.dtype, copy=True),
        positive=None,
        positive_key=None,
        exclude_self=False,
        symmetric=other.lower,
    )


__all__ = ["OtherRows", "pair_statistics", "rows_of_ranks", "sum_of_pair_gradients"]

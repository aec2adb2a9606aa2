"""Queries against keys among which none is a positive: one tile of a loss that spans many tiles.

What a query's softmax is over is then known only when all of its tiles have been seen. So the
statistics of a tile are handed out to be merged, and its gradients take the merged ones. Every key
is a negative of every query, but for those of its label; fields of `Contrast` about positives are
not looked at, and the caller adds the positives' part once.

Cost in products of 2*N*M*D flop: statistics 1, for one direction or both; gradients 1, and 1 more
for each of query and key; the sigmoid form's losses and gradients together the same as gradients.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Contrast, Gradients, Wanted
from mmcl_fast.losses.torch_backend import softmax_passes
from mmcl_fast.losses.torch_backend.gradients import Accumulator
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics
from mmcl_fast.losses.torch_backend.score_blocks import Work

Pair = tuple[Tensor, Tensor]


def foreign_statistics(contrast: Contrast) -> tuple[Pair, Pair | None]:
    """Sums over the negatives of every query, and if `symmetric` of every key.

    Returns: (top, total) of the queries [N] and of the keys [M] or None: the largest score in units
        of log 2, and the sum of 2^(score - top). Of none: a finite top far below any, and 0.
    """
    work = _work(contrast)
    rows = RowStatistics.start("decoupled", work.query.new_empty(len(work.query)))
    columns = RowStatistics.start("decoupled", work.key.new_empty(len(work.key)))
    for block in work.blocks():
        scores = work.scores(block)
        top = rows.top[block.rows].clone()
        if not contrast.symmetric:
            rows.merge(block.rows, top, softmax_passes.softmax_rows(scores, top))
            continue
        tops = top, columns.top[block.columns].clone()
        totals = softmax_passes.softmax_both(scores, *tops)
        rows.merge(block.rows, tops[0], totals[0])
        columns.merge(block.columns, tops[1], totals[1])
    of_queries = work.unsorted(rows.top), work.unsorted(rows.negatives)
    if not contrast.symmetric:
        return of_queries, None
    return of_queries, (work.unsorted(columns.top, 1), work.unsorted(columns.negatives, 1))


def foreign_gradients(
    contrast: Contrast, wanted: Wanted, rows: Pair, columns: Pair | None
) -> Gradients:
    """Gradients of the softmax forms through the negatives.

    Args:
        contrast: The tile.
        wanted: Of query, key and temperature.
        rows: (top, scale) of the queries, [N]: dL/ds_ij is scale_i * 2^(s_ij - top_i) ...
        columns: ... plus scale_j * 2^(s_ij - top_j) with those of the keys, [M], if not None.
    """
    work = _work(contrast)
    found = Accumulator.of(work, wanted)
    rows = work.sorted_rows(rows[0]), work.sorted_rows(rows[1])
    if columns is not None and work.order is not None:
        columns = columns[0][work.order[1]], columns[1][work.order[1]]
    for block in work.blocks():
        scores = work.scores(block)
        own, other = (rows[0][block.rows], rows[1][block.rows]), None
        if columns is not None:
            other = columns[0][block.columns], columns[1][block.columns]
        softmax_passes.softmax_weights(scores, own, other)
        found.add_rows(block, scores, None)
        found.add_columns(block, scores, None)
    return _with_temperature(found)


def foreign_sigmoid(contrast: Contrast, wanted: Wanted, weight: float) -> tuple[Tensor, Gradients]:
    """Sums [N] of log(1 + e^(s_ij + bias)) over the keys, and gradients of `weight` times them."""
    work = _work(contrast)
    found = Accumulator.of(work, wanted)
    losses = work.query.new_zeros(len(work.query))
    for block in work.blocks():
        scores = work.scores(block)
        losses[block.rows] = softmax_passes.softplus_rows(scores)
        if not any(wanted):
            continue
        scores.mul_(weight)
        found.add_rows(block, scores, None)
        found.add_columns(block, scores, None)
        if wanted.bias:
            found.add_bias(block, scores.sum(dim=1))
    return losses, _with_temperature(found)


def _work(contrast: Contrast) -> Work:
    # With a place of its own for the positives, no key is taken for one.
    aside = replace(
        contrast, positive=None, positive_key=contrast.query, symmetric=False, stopped=False
    )
    return Work.of(aside)


def _with_temperature(found: Accumulator) -> Gradients:
    """Scores scale with 1 / temperature: -sum of weight * score / temperature, row by row."""
    work = found.work
    if found.wanted.temperature:
        assert found.query is not None
        found.temperature = -torch.linalg.vecdot(work.query, found.query) / work.temperature
    return found.result()


__all__ = ["foreign_gradients", "foreign_sigmoid", "foreign_statistics"]

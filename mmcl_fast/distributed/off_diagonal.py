"""Queries against keys among which none is a positive: one tile of a loss that spans many tiles.

The softmax of a query is over all of its tiles. So the statistics of a tile are returned to be
merged, and its gradients take the merged statistics. Every key is a negative of every query, except
for keys of its label; fields of `Contrast` about positives are ignored, and the caller adds the
positives once.

Cost in products of 2*N*M*D flop: statistics 1, for one direction or both; gradients 1, and 1 more
for each of query and key; the sigmoid form's losses and gradients together the same as gradients.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Contrast, Gradients, Requested
from mmcl_fast.losses.torch_backend import softmax_passes
from mmcl_fast.losses.torch_backend.gradients import GradientAccumulator
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics
from mmcl_fast.losses.torch_backend.score_blocks import BlockedContrast

Pair = tuple[Tensor, Tensor]


def remote_statistics(contrast: Contrast) -> tuple[Pair, Pair | None]:
    """Sums over the negatives of every query, and if `symmetric` of every key.

    Returns: (max_score, exp_sum) of the queries [N] and of the keys [M] or None: the largest score
        in units of log 2, and the sum of 2^(score - max). Without keys: a finite value below any
        score, and 0.
    """
    blocked = _blocked(contrast)
    rows = RowStatistics.start("decoupled", blocked.query.new_empty(len(blocked.query)))
    columns = RowStatistics.start("decoupled", blocked.key.new_empty(len(blocked.key)))
    for block in blocked.blocks():
        scores = blocked.scores(block)
        row_max = rows.max_score[block.rows].clone()
        if not contrast.symmetric:
            rows.merge(block.rows, row_max, softmax_passes.softmax_rows(scores, row_max))
            continue
        maxima = row_max, columns.max_score[block.columns].clone()
        sums = softmax_passes.softmax_both(scores, *maxima)
        rows.merge(block.rows, maxima[0], sums[0])
        columns.merge(block.columns, maxima[1], sums[1])
    of_queries = blocked.unsorted(rows.max_score), blocked.unsorted(rows.exp_sum)
    if not contrast.symmetric:
        return of_queries, None
    return of_queries, (
        blocked.unsorted(columns.max_score, 1),
        blocked.unsorted(columns.exp_sum, 1),
    )


def remote_gradients(
    contrast: Contrast, requested: Requested, rows: Pair, columns: Pair | None
) -> Gradients:
    """Gradients of the softmax forms through the negatives.

    Args:
        contrast: The tile.
        requested: Of query, key and temperature.
        rows: (max_score, scale) of the queries, [N]: dL/ds_ij is scale_i * 2^(s_ij - max_i) ...
        columns: ... plus scale_j * 2^(s_ij - max_j) with those of the keys, [M], if not None.
    """
    blocked = _blocked(contrast)
    gradients = GradientAccumulator.of(blocked, requested)
    rows = blocked.sorted_rows(rows[0]), blocked.sorted_rows(rows[1])
    if columns is not None and blocked.order is not None:
        columns = columns[0][blocked.order[1]], columns[1][blocked.order[1]]
    for block in blocked.blocks():
        scores = blocked.scores(block)
        row_terms, column_terms = (rows[0][block.rows], rows[1][block.rows]), None
        if columns is not None:
            column_terms = columns[0][block.columns], columns[1][block.columns]
        softmax_passes.softmax_weights(scores, row_terms, column_terms)
        gradients.add_rows(block, scores, None)
        gradients.add_columns(block, scores, None)
    return _with_temperature(gradients)


def remote_sigmoid(
    contrast: Contrast, requested: Requested, weight: float
) -> tuple[Tensor, Gradients]:
    """Sums [N] of log(1 + e^(s_ij + bias)) over the keys, and gradients of `weight` times them."""
    blocked = _blocked(contrast)
    gradients = GradientAccumulator.of(blocked, requested)
    losses = blocked.query.new_zeros(len(blocked.query))
    for block in blocked.blocks():
        scores = blocked.scores(block)
        losses[block.rows] = softmax_passes.softplus_rows(scores)
        if not any(requested):
            continue
        scores.mul_(weight)
        gradients.add_rows(block, scores, None)
        gradients.add_columns(block, scores, None)
        if requested.bias:
            gradients.add_bias(block, scores.sum(dim=1))
    return losses, _with_temperature(gradients)


def _blocked(contrast: Contrast) -> BlockedContrast:
    # With `positive_key`, no key is a positive.
    negatives_only = replace(
        contrast, positive=None, positive_key=contrast.query, symmetric=False, stopped=False
    )
    return BlockedContrast.of(negatives_only)


def _with_temperature(gradients: GradientAccumulator) -> Gradients:
    """Adds the temperature's: -sum of weight * score / temperature, row by row."""
    blocked = gradients.blocked
    if gradients.requested.temperature:
        assert gradients.query is not None
        gradients.temperature = (
            -torch.linalg.vecdot(blocked.query, gradients.query) / blocked.temperature
        )
    return gradients.result()


__all__ = ["remote_gradients", "remote_sigmoid", "remote_statistics"]

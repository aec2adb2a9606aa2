"""Contrastive losses in plain torch with bounded memory: blocks of scores, gradient by hand.

Scores exist for one block at a time, so memory is O((N + M) D) plus a workspace whose size depends
on M only, and on a fixed budget (`score_blocks.py`). The backward pass keeps the gradient itself,
or three values a row.

Numerics contract. Scores, sums, loss and gradient accumulators are float32 (float64 for float64
input) whatever the input dtype. Every exponential is relative to the maximum of its own row or
column, so no temperature overflows, and the softmax loss is `(max - s_i+) + log1p(...)`, so a loss
near 0 keeps its relative accuracy. Two runs on one device give the same bits.

Cost in products of 2*N*M*D flop, for the sweeps below:

    losses alone                                    1
    one way, gradient of the query alone            2
    one way, both gradients                         3   (weighted row by row: 4)
    symmetric, stopped                              3
    symmetric                                       4   less the held blocks' share of 1
    query and key the same rows, both gradients     2   less the held blocks' share of 1/2
    two labels' halves                              half of the above
    the same rows, halves, stopped                  3/4
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Contrast, Forward, Gradients, Requested
from mmcl_fast.losses.torch_backend import softmax_passes
from mmcl_fast.losses.torch_backend.gradients import GradientAccumulator
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics
from mmcl_fast.losses.torch_backend.score_blocks import Block, BlockedContrast


def contrast_forward(contrast: Contrast, requested: Requested, weight: float | None) -> Forward:
    """Row losses, with their gradients or the statistics for them.

    Args:
        contrast: The problem.
        requested: Inputs whose gradient is needed, now or later.
        weight: With a number, the gradients are those of `weight` times the sum of the losses.
            None: `contrast_backward` will weight each row.

    Returns: Losses, and gradients (if `weight` is a number) or statistics.

    Numerics: See the module.
    """
    blocked = BlockedContrast.of(contrast)
    gradients = None
    if any(requested) and weight is not None:
        gradients = GradientAccumulator.of(blocked, requested)
    if gradients is None or weight is None:
        rows, columns = _statistics(blocked, hold=False)
    elif contrast.stopped and (contrast.symmetric or blocked.same_rows):
        rows, columns = _stopped(blocked, gradients, weight)
    elif contrast.symmetric or blocked.same_rows:
        rows, columns = _statistics(blocked, hold=True)
        upstream = rows.max_score.new_full(rows.max_score.shape, weight)
        _weighted(blocked, gradients, rows, columns, upstream)
    else:
        rows, columns = _one_way(blocked, gradients, weight), None
    losses = rows.losses()
    if contrast.symmetric and columns is not None:
        losses = (losses + columns.losses()) / 2
    sides = [rows] if columns is None or blocked.same_rows else [rows, columns]
    statistics = tuple(x for side in sides for x in side.saved())
    return Forward(
        blocked.unsorted(losses), None if gradients is None else gradients.result(), statistics
    )


def contrast_backward(
    contrast: Contrast, requested: Requested, statistics: tuple[Tensor, ...], upstream: Tensor
) -> Gradients:
    """Gradients of sum_i upstream_i loss_i.

    Args:
        contrast: As it was in the forward pass.
        requested: Inputs whose gradient is needed.
        statistics: Those of `contrast_forward`.
        upstream: [N], the weight of each loss.

    Numerics: See the module.
    """
    blocked = BlockedContrast.of(contrast)
    gradients = GradientAccumulator.of(blocked, requested)
    rows = RowStatistics.of(contrast.form, statistics[:3])
    columns = RowStatistics.of(contrast.form, statistics[3:]) if statistics[3:] else None
    if blocked.same_rows:
        columns = rows
    upstream = blocked.sorted_rows(upstream.to(contrast.dtype))
    _weighted(blocked, gradients, rows, columns, upstream)
    return gradients.result()


def _statistics(
    blocked: BlockedContrast, *, hold: bool
) -> tuple[RowStatistics, RowStatistics | None]:
    """One sweep for the losses alone; with the same rows on both sides there is one result."""
    form = blocked.contrast.form
    rows = RowStatistics.start(form, blocked.positive)
    columns = rows if blocked.same_rows else None
    if blocked.contrast.symmetric:
        columns = RowStatistics.start(form, blocked.positive)
    for block in blocked.blocks():
        scores = blocked.scores(block, hold=hold)
        if form == "sigmoid":
            rows.exp_sum[block.rows] = softmax_passes.softplus_rows(scores)
            continue
        _add_hard(blocked, rows, block)
        if columns is None or block.square:
            _add_rows(rows, block.rows, scores, None if hold else scores)
            continue
        maxima = rows.max_score[block.rows].clone(), columns.max_score[block.columns].clone()
        sums = softmax_passes.softmax_both(scores, *maxima)
        rows.merge(block.rows, maxima[0], sums[0])
        columns.merge(block.columns, maxima[1], sums[1])
    rows.include_positive()
    if columns is not None and columns is not rows:
        columns.include_positive()
    return rows, columns


def _one_way(
    blocked: BlockedContrast, gradients: GradientAccumulator, weight: float
) -> RowStatistics:
    """Losses and gradients in one sweep: a block holds all keys of its rows."""
    form = blocked.contrast.form
    side = RowStatistics.start(form, blocked.positive)
    for block in blocked.blocks():
        scores, hard = blocked.scores(block), None
        if form == "sigmoid":
            side.exp_sum[block.rows] = softmax_passes.softplus_rows(scores)
        else:
            hard = _add_hard(blocked, side, block)
            rescale = side.include_positive(block.rows)
            rescale = rescale * _add_rows(side, block.rows, scores, scores)
            if hard is not None:
                hard.mul_(rescale[:, None])
        scale = side.rows(block.rows).scale() * weight
        gradients.add_rows(block, scores, scale)
        gradients.add_columns(block, scores, scale)
        if hard is not None:
            gradients.add_hard(block, hard.mul_(scale[:, None]))
        if gradients.requested.bias:
            gradients.add_bias(block, scores.sum(dim=1) * scale)
    side.include_positive()
    gradients.add_positives(side.positive_weight() * weight)
    return side


def _stopped(
    blocked: BlockedContrast, gradients: GradientAccumulator, weight: float
) -> tuple[RowStatistics, RowStatistics]:
    """One sweep for both directions, each differentiated in its query only.

    Rows are complete within their block; columns keep a running weighted sum of the queries, which
    is rescaled whenever the maximum of a column rises.
    """
    symmetric = blocked.contrast.symmetric
    weight = weight / 2 if symmetric else weight
    form = blocked.contrast.form
    rows = RowStatistics.start(form, blocked.positive)
    columns = RowStatistics.start(form, blocked.positive) if symmetric else rows
    for block in blocked.blocks():
        scores = blocked.scores(block)
        terms = torch.empty_like(scores)
        rows.include_positive(block.rows)
        _add_rows(rows, block.rows, scores, terms)
        gradients.add_rows(block, terms, rows.rows(block.rows).scale() * weight)
        column_max = columns.max_score[block.columns].clone()
        column_sum = softmax_passes.softmax_columns(scores, column_max, scores)
        rescale = columns.merge(block.columns, column_max, column_sum)
        if gradients.columns is not None:
            weighted_queries = gradients.columns[:, block.columns]
            weighted_queries.mul_(rescale).add_(gradients.through_queries(block, scores))
    rescale = columns.include_positive()
    if symmetric:
        rows.include_positive()
    if gradients.columns is not None:
        gradients.columns.mul_(rescale * columns.scale() * weight)
    gradients.add_stopped_positives(
        rows.positive_weight() * weight, columns.positive_weight() * weight
    )
    return rows, columns


def _weighted(
    blocked: BlockedContrast,
    gradients: GradientAccumulator,
    rows: RowStatistics,
    columns: RowStatistics | None,
    upstream: Tensor,
) -> None:
    """Gradients of sum_i upstream_i loss_i, from the statistics of a first sweep."""
    if blocked.contrast.symmetric:
        upstream = upstream / 2
    form = blocked.contrast.form
    row_scale = rows.scale() * upstream
    column_scale = None if columns is None else columns.scale() * upstream
    # Backwards: the scores of the last blocks are kept from the first sweep.
    for block in reversed(list(blocked.blocks())):
        scores = blocked.scores(block)
        if form == "sigmoid":
            softmax_passes.softplus_rows(scores)
            scores.mul_(row_scale[block.rows, None])
        else:
            row_terms = rows.max_score[block.rows], row_scale[block.rows]
            column_terms = None
            if columns is not None and column_scale is not None:
                column_terms = columns.max_score[block.columns], column_scale[block.columns]
            softmax_passes.softmax_weights(scores, row_terms, column_terms)
        gradients.add_rows(block, scores, None)
        if not block.square:  # a square block holds each pair twice
            gradients.add_columns(block, scores, None)
        if blocked.contrast.hard is not None:
            terms = torch.exp2(blocked.hard_scores(block) - rows.max_score[block.rows, None])
            gradients.add_hard(block, terms.mul_(row_scale[block.rows, None]))
        if gradients.requested.bias:
            gradients.add_bias(block, scores.sum(dim=1))
    positive_weight = rows.positive_weight() * upstream
    if columns is not None and columns is not rows:
        positive_weight = positive_weight + columns.positive_weight() * upstream
    gradients.add_positives(positive_weight)


def _add_rows(side: RowStatistics, part: slice, scores: Tensor, out: Tensor | None) -> Tensor:
    """Merge a block's rows, with 2^(score - max) in `out`; returns the factor of earlier sums."""
    row_max = side.max_score[part].clone()
    row_sum = softmax_passes.softmax_rows(scores, row_max, out)
    return side.merge(part, row_max, row_sum)


def _add_hard(blocked: BlockedContrast, side: RowStatistics, block: Block) -> Tensor | None:
    """Merge the hard negatives of a block's rows; returns their 2^(score - max), [c, K]."""
    if blocked.contrast.hard is None:
        return None
    hard = blocked.hard_scores(block)
    _add_rows(side, block.rows, hard, hard)
    return hard


__all__ = ["contrast_backward", "contrast_forward"]

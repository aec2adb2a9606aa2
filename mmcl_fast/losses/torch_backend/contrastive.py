"""Contrastive losses in plain torch with bounded memory: blocks of scores, gradient by hand.

Scores exist for one block at a time, so memory is O((N + M) D) plus a workspace whose size depends
on M only, and on a fixed budget (`scores.py`). What is kept for the backward pass is the gradient
itself, or three numbers a row.

Numerics contract. Scores, sums, loss and gradient accumulators are float32 (float64 for float64
input) whatever the input dtype. Every exponential is relative to the maximum of its own row or
column, so no temperature overflows, and the softmax loss is `(top - s_i+) + log1p(...)`, so a loss
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

from mmcl_fast.losses.contrast import Contrast, Forward, Gradients, Wanted
from mmcl_fast.losses.torch_backend import softmax_passes
from mmcl_fast.losses.torch_backend.gradients import Accumulator
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics
from mmcl_fast.losses.torch_backend.score_blocks import Block, Work


def contrast_forward(contrast: Contrast, wanted: Wanted, weight: float | None) -> Forward:
    """Row losses, and what their gradient takes.

    Args:
        contrast: The problem.
        wanted: Inputs whose gradient is wanted, now or later.
        weight: With a number, the gradients are those of `weight` times the sum of the losses.
            None: rows will be weighted one by one, by `contrast_backward`.

    Returns: Losses, and gradients (if `weight` is a number) or statistics.

    Numerics: See the module.
    """
    work = Work.of(contrast)
    found = Accumulator.of(work, wanted) if any(wanted) and weight is not None else None
    if found is None or weight is None:
        rows, columns = _statistics(work, hold=False)
    elif contrast.stopped and (contrast.symmetric or work.own):
        rows, columns = _stopped(work, found, weight)
    elif contrast.symmetric or work.own:
        rows, columns = _statistics(work, hold=True)
        upstream = rows.top.new_full(rows.top.shape, weight)
        _weighted(work, found, rows, columns, upstream)
    else:
        rows, columns = _one_way(work, found, weight), None
    losses = rows.losses()
    if contrast.symmetric and columns is not None:
        losses = (losses + columns.losses()) / 2
    sides = [rows] if columns is None or work.own else [rows, columns]
    statistics = tuple(x for side in sides for x in side.saved())
    return Forward(work.unsorted(losses), None if found is None else found.result(), statistics)


def contrast_backward(
    contrast: Contrast, wanted: Wanted, statistics: tuple[Tensor, ...], upstream: Tensor
) -> Gradients:
    """Gradients of the losses, each weighted by its own number.

    Args:
        contrast: As it was in the forward pass.
        wanted: Inputs whose gradient is wanted.
        statistics: Those of `contrast_forward`.
        upstream: [N], the weight of each loss.

    Numerics: See the module.
    """
    work = Work.of(contrast)
    found = Accumulator.of(work, wanted)
    rows = RowStatistics.of(contrast.form, statistics[:3])
    columns = RowStatistics.of(contrast.form, statistics[3:]) if statistics[3:] else None
    if work.own:
        columns = rows
    upstream = work.sorted_rows(upstream.to(contrast.dtype))
    _weighted(work, found, rows, columns, upstream)
    return found.result()


def _statistics(work: Work, *, hold: bool) -> tuple[RowStatistics, RowStatistics | None]:
    """One sweep over the scores for the losses alone; of an own contrast both sides are one."""
    form = work.contrast.form
    rows = RowStatistics.start(form, work.positive)
    columns = rows if work.own else None
    if work.contrast.symmetric:
        columns = RowStatistics.start(form, work.positive)
    for block in work.blocks():
        scores = work.scores(block, hold=hold)
        if form == "sigmoid":
            rows.negatives[block.rows] = softmax_passes.softplus_rows(scores)
            continue
        _add_hard(work, rows, block)
        if columns is None or block.square:
            _add_rows(rows, block.rows, scores, None if hold else scores)
            continue
        tops = rows.top[block.rows].clone(), columns.top[block.columns].clone()
        totals = softmax_passes.softmax_both(scores, *tops)
        rows.merge(block.rows, tops[0], totals[0])
        columns.merge(block.columns, tops[1], totals[1])
    rows.include_positive()
    if columns is not None and columns is not rows:
        columns.include_positive()
    return rows, columns


def _one_way(work: Work, found: Accumulator, weight: float) -> RowStatistics:
    """Losses and gradients in one sweep: a block holds all keys of its rows."""
    form = work.contrast.form
    side = RowStatistics.start(form, work.positive)
    for block in work.blocks():
        scores, hard = work.scores(block), None
        if form == "sigmoid":
            side.negatives[block.rows] = softmax_passes.softplus_rows(scores)
        else:
            hard = _add_hard(work, side, block)
            shrink = side.include_positive(block.rows)
            shrink = shrink * _add_rows(side, block.rows, scores, scores)
            if hard is not None:
                hard.mul_(shrink[:, None])
        scale = side.rows(block.rows).scale() * weight
        found.add_rows(block, scores, scale)
        found.add_columns(block, scores, scale)
        if hard is not None:
            found.add_hard(block, hard.mul_(scale[:, None]))
        if found.wanted.bias:
            found.add_bias(block, scores.sum(dim=1) * scale)
    side.include_positive()
    found.add_positives(side.pull() * weight)
    return side


def _stopped(work: Work, found: Accumulator, weight: float) -> tuple[RowStatistics, RowStatistics]:
    """One sweep for both directions, each differentiated in its query only.

    Rows are complete within their block; columns keep a running mixture of the queries, which is
    rescaled whenever a column's largest score rises.
    """
    symmetric = work.contrast.symmetric
    weight = weight / 2 if symmetric else weight
    form = work.contrast.form
    rows = RowStatistics.start(form, work.positive)
    columns = RowStatistics.start(form, work.positive) if symmetric else rows
    for block in work.blocks():
        scores = work.scores(block)
        terms = torch.empty_like(scores)
        rows.include_positive(block.rows)
        _add_rows(rows, block.rows, scores, terms)
        found.add_rows(block, terms, rows.rows(block.rows).scale() * weight)
        top = columns.top[block.columns].clone()
        total = softmax_passes.softmax_columns(scores, top, scores)
        shrink = columns.merge(block.columns, top, total)
        if found.columns is not None:
            mixture = found.columns[:, block.columns]
            mixture.mul_(shrink).add_(found.through_queries(block, scores))
    raised = columns.include_positive()
    if symmetric:
        rows.include_positive()
    if found.columns is not None:
        found.columns.mul_(raised * columns.scale() * weight)
    found.add_stopped_positives(rows.pull() * weight, columns.pull() * weight)
    return rows, columns


def _weighted(
    work: Work,
    found: Accumulator,
    rows: RowStatistics,
    columns: RowStatistics | None,
    upstream: Tensor,
) -> None:
    """Gradients of sum_i upstream_i loss_i, from the statistics of a first sweep."""
    if work.contrast.symmetric:
        upstream = upstream / 2
    form = work.contrast.form
    row_scale = rows.scale() * upstream
    column_scale = None if columns is None else columns.scale() * upstream
    # Backwards: the scores of the last blocks are still there from the first sweep.
    for block in reversed(list(work.blocks())):
        scores = work.scores(block)
        if form == "sigmoid":
            softmax_passes.softplus_rows(scores)
            scores.mul_(row_scale[block.rows, None])
        else:
            own = rows.top[block.rows], row_scale[block.rows]
            other = None
            if columns is not None and column_scale is not None:
                other = columns.top[block.columns], column_scale[block.columns]
            softmax_passes.softmax_weights(scores, own, other)
        found.add_rows(block, scores, None)
        if not block.square:  # there each pair stands twice already
            found.add_columns(block, scores, None)
        if work.contrast.hard is not None:
            terms = torch.exp2(work.hard_scores(block) - rows.top[block.rows, None])
            found.add_hard(block, terms.mul_(row_scale[block.rows, None]))
        if found.wanted.bias:
            found.add_bias(block, scores.sum(dim=1))
    pull = rows.pull() * upstream
    if columns is not None and columns is not rows:
        pull = pull + columns.pull() * upstream
    found.add_positives(pull)


def _add_rows(side: RowStatistics, part: slice, scores: Tensor, out: Tensor | None) -> Tensor:
    """Merge a block's rows into `side`, with 2^(score - top) in `out`; returns the shrinkage."""
    top = side.top[part].clone()
    total = softmax_passes.softmax_rows(scores, top, out)
    return side.merge(part, top, total)


def _add_hard(work: Work, side: RowStatistics, block: Block) -> Tensor | None:
    """Merge the hard negatives of a block's rows; returns their 2^(score - top), [c, K]."""
    if work.contrast.hard is None:
        return None
    hard = work.hard_scores(block)
    _add_rows(side, block.rows, hard, hard)
    return hard


__all__ = ["contrast_backward", "contrast_forward"]

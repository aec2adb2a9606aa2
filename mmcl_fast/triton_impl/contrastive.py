"""The contrastive losses by Triton kernels: row losses from statistics, gradients from weights.

Numerics contract. Scores, sums and losses are float32; statistics are relative to each row's own
maximum, so no temperature overflows, and the softmax loss is `(top - s_i+) + log1p(...)`, so a loss
near 0 keeps its relative accuracy. Gradients are float32 sums; for 16-bit features each negative's
weight is rounded to their dtype first (`kernels/contrast_gradient.py` has the bound), the
positives' are not. Autocast must be off. Deterministic: equal bits on every run.

Cost in products of 2*N*M*D flop, fused / chunked:

    losses alone                                       1 / 1   (own rows: 1/2 / 1)
    one way, or a stopped direction, query alone       2 / 2
    one way, both gradients                            4 / 3
    symmetric, both gradients                          5 / 4
    own rows                                         2.5 / 3

Chunked gradients that come with the losses take up to 1 less: the last scores are kept.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmcl_fast.contrast import Contrast, Forward, Gradients, Wanted
from mmcl_fast.kernels.contrast_gradient import Side
from mmcl_fast.kernels.contrast_statistics import Partial
from mmcl_fast.triton_impl.assembly import Direction, assembled
from mmcl_fast.triton_impl.engines import engine_of
from mmcl_fast.triton_impl.hard import hard_statistics
from mmcl_fast.triton_impl.sides import Statistics
from mmcl_fast.triton_impl.work import Engine, Settle, Sides, Sums, Work


def contrast_forward(contrast: Contrast, wanted: Wanted, weight: float | None) -> Forward:
    """Row losses, and what their gradient takes.

    Args:
        contrast: The problem; features of float16 | bfloat16 | float32, on CUDA (on the CPU in
            Triton's interpreter).
        wanted: Inputs whose gradient is wanted, now or later.
        weight: With a number, the gradients are those of `weight` times the sum of the losses.
            None: rows will be weighted one by one, by `contrast_backward`.

    Returns: Losses, and gradients (if `weight` is a number) or statistics.

    Numerics: See the module.
    """
    contrast = _plain(contrast)
    if weight is not None and any(wanted) and _directions_are_apart(contrast):
        losses, gradients = _one_way(contrast, wanted, weight)
        return Forward(losses, gradients, ())
    work = Work.of(contrast)
    engine, both = engine_of(work), weight is not None and any(wanted)
    rows, columns = _statistics(contrast, work, engine, keep=both)
    losses = rows.losses()
    if contrast.symmetric and columns is not None:
        losses = (losses + columns.losses()) / 2
    if weight is None or not both:
        saved = rows.saved() if columns is None else (*rows.saved(), *columns.saved())
        return Forward(losses, None, saved)
    upstream = torch.full_like(losses, weight)
    gradients = _gradients(contrast, wanted, (work, engine), (rows, columns), upstream)
    return Forward(losses, gradients, ())


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
    contrast = _plain(contrast)
    rows = Statistics(contrast.form, *statistics[:3])
    columns = Statistics(contrast.form, *statistics[3:]) if statistics[3:] else None
    work = Work.of(contrast)
    means = work, engine_of(work)
    return _gradients(contrast, wanted, means, (rows, columns), upstream.to(torch.float32))


def _plain(contrast: Contrast) -> Contrast:
    """Of an own contrast both directions are the same: one is enough."""
    return replace(contrast, symmetric=False) if contrast.key is None else contrast


def _directions_are_apart(contrast: Contrast) -> bool:
    """Whether no pair's weight takes the statistics of two rows."""
    return contrast.stopped or not (contrast.symmetric or contrast.key is None)


def _one_way(contrast: Contrast, wanted: Wanted, weight: float) -> tuple[Tensor, Gradients]:
    """Losses and gradients at once."""
    work = Work.of(contrast)
    engine = engine_of(work)
    query = wanted.query or wanted.temperature or wanted.bias
    key = wanted.key and not contrast.stopped
    found, sums = engine.one_way(work, _settle(contrast, work), query=query, key=key)
    losses = found.losses()
    share = weight / 2 if contrast.symmetric else weight
    directions = [Direction(found, torch.full_like(losses, share))]
    if contrast.symmetric:
        other = work.mirrored()
        wanted_key = wanted.key or wanted.temperature
        mirrored, columns = engine.one_way(
            other, _settle(contrast, other), query=wanted_key, key=False
        )
        losses = (losses + mirrored.losses()) / 2
        sums = Sums(sums.query, columns.query)
        directions.append(Direction(mirrored, torch.full_like(losses, share)))
    return losses, assembled(contrast, work, wanted, sums.times(share), directions)


def _statistics(
    contrast: Contrast, work: Work, engine: Engine, *, keep: bool
) -> tuple[Statistics, Statistics | None]:
    """Of rows, and of columns if the loss is symmetric."""
    rows, columns = engine.statistics(work, columns=contrast.symmetric, keep=keep)
    whole = _settle(contrast, work)(slice(None), rows)
    if columns is None:
        return whole, None
    # Symmetric losses have positives on the diagonal: one score is both directions' positive.
    return whole, Statistics.merged(contrast.form, whole.positive, columns.top, columns.total)


def _settle(contrast: Contrast, work: Work) -> Settle:
    """How partial results of rows become statistics: with positives and hard negatives."""

    def settle(rows: slice, partial: Partial) -> Statistics:
        top, total = partial.top, partial.total
        if contrast.positive_key is not None:
            positive = work.paired_scores(contrast.positive_key, rows)
        else:
            assert partial.found is not None
            positive = partial.found if partial.found.ndim == 1 else partial.found.sum(dim=0)
        if contrast.hard is not None:
            hard_top, hard_total = hard_statistics(work, contrast.hard, rows)
            top, total = torch.cat([top, hard_top[None]]), torch.cat([total, hard_total[None]])
        return Statistics.merged(contrast.form, positive, top, total)

    return settle


def _gradients(
    contrast: Contrast,
    wanted: Wanted,
    means: tuple[Work, Engine],
    statistics: tuple[Statistics, Statistics | None],
    upstream: Tensor,
) -> Gradients:
    """Gradients of sum_i upstream_i loss_i."""
    work = means[0]
    rows, columns = statistics
    if contrast.symmetric:
        upstream = upstream / 2
    largest = upstream.abs().amax() if len(upstream) else upstream.new_ones(())
    largest = torch.where(largest == 0, 1.0, largest)
    relative = upstream / largest  # the kernels take weights within -1..1
    row_side = Side(rows.top, rows.scale() * relative)
    column_side = row_side if work.own else None
    if columns is not None:
        column_side = Side(columns.top, columns.scale() * relative)
    sums = _negatives(contrast, means, wanted, (row_side, column_side))
    directions = [Direction(rows, upstream)]
    if columns is not None:
        directions.append(Direction(columns, upstream))
    return assembled(contrast, work, wanted, sums.times(largest), directions)


def _negatives(
    contrast: Contrast, means: tuple[Work, Engine], wanted: Wanted, sides: Sides
) -> Sums:
    """Weighted sums over negatives, for the inputs whose gradient takes them."""
    work, engine = means
    rows, columns = sides
    query = wanted.query or wanted.temperature or wanted.bias
    key = wanted.key and not contrast.stopped
    query_sides = key_sides = sides
    if contrast.stopped:
        query_sides, key_sides = (rows, None), (None, columns)
        key = contrast.symmetric and (wanted.key or wanted.temperature)
    return engine.gradient(
        work, query_sides if query else None, key_sides if key else None, weights=wanted.bias
    )


__all__ = ["contrast_backward", "contrast_forward"]

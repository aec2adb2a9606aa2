"""Gradients of the inputs, from the sums over negatives and what positives and others add."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmcl_fast.contrast import Contrast, Gradients, Wanted
from mmcl_fast.triton_impl.hard import hard_weights
from mmcl_fast.triton_impl.sides import Statistics
from mmcl_fast.triton_impl.work import Sums, Work, row_dots


class Direction(NamedTuple):
    """One direction's queries, and the weight of each of their losses."""

    statistics: Statistics
    upstream: Tensor

    @property
    def pull(self) -> Tensor:
        """-dL/ds of the positives."""
        return self.statistics.pull() * self.upstream


def assembled(
    contrast: Contrast, work: Work, wanted: Wanted, sums: Sums, directions: list[Direction]
) -> Gradients:
    """Gradients of all that is wanted.

    Args:
        contrast: The problem.
        work: The same as the kernels see it.
        wanted: Inputs whose gradient is wanted.
        sums: Over negatives that are keys, weighted by dL/ds; what a wanted gradient takes is
            there. Overwritten.
        directions: Of the rows and, in a symmetric loss, of the columns.
    """
    rate = 1.0 / work.pairs.temperature
    pulls = [direction.pull for direction in directions]
    outside = _outside(contrast, work, directions[0], pulls[0])
    # A pair of own rows adds the same to the gradients of both its rows.
    share = 0.5 if work.own else 1.0
    query = dots = bias = None
    if sums.query is not None:
        inside = sums.query
        if contrast.positive_key is None:
            inside -= _positives_of_queries(contrast, work, pulls)
        dots = row_dots(work.query, inside) * share
        if outside.query is not None:
            dots += row_dots(work.query, outside.query)
            inside += outside.query
        query = inside.mul_(rate)
    key = _key_gradient(contrast, work, wanted, sums, pulls)
    if key is not None:
        if contrast.stopped and contrast.symmetric and dots is not None:
            dots = dots + row_dots(work.key, key)
        key = key.mul_(rate)
    if wanted.bias and sums.weights is not None:
        bias = sums.weights * share + outside.weights - pulls[0]
    temperature = None if dots is None else -dots * rate * rate
    return Gradients(
        query=query if wanted.query else None,
        key=key if wanted.key else None,
        positive_key=_positive_key_gradient(contrast, work, wanted, pulls[0] * rate),
        hard=_hard_gradient(contrast, work, wanted, outside.hard, rate),
        temperature=temperature if wanted.temperature else None,
        bias=bias,
    )


class _Outside(NamedTuple):
    """What rows that are no keys add."""

    query: Tensor | None  # [N, D]
    weights: Tensor  # [N], sum of dL/ds over hard negatives
    hard: Tensor | None  # [N, K], dL/ds of hard negatives


def _outside(contrast: Contrast, work: Work, rows: Direction, pull: Tensor) -> _Outside:
    query = hard = None
    weights = torch.zeros_like(pull)
    if contrast.positive_key is not None:
        query = -pull[:, None] * contrast.positive_key
    if contrast.hard is not None:
        hard = hard_weights(work, contrast.hard, contrast.form, rows.statistics)
        hard = hard * rows.upstream[:, None]
        through = (hard[:, :, None] * contrast.hard).sum(dim=1)
        query = through if query is None else query + through
        weights = hard.sum(dim=1)
    return _Outside(query, weights, hard)


def _positives_of_queries(contrast: Contrast, work: Work, pulls: list[Tensor]) -> Tensor:
    """What positives that are keys take from the query's gradient."""
    index = contrast.positive
    pull = pulls[0]
    if work.own:  # row i is also the positive of its positive
        pull = pull + (pull if index is None else pull[index])
    if contrast.symmetric and not contrast.stopped:
        pull = pull + pulls[1]
    features = work.key[: len(pull)] if index is None else work.key[index]
    return pull[:, None] * features


def _key_gradient(
    contrast: Contrast, work: Work, wanted: Wanted, sums: Sums, pulls: list[Tensor]
) -> Tensor | None:
    """Before division by the temperature; also where only the temperature's takes it."""
    if sums.key is None:
        stopped = work.key.new_zeros(work.key.shape, dtype=torch.float32)
        return stopped if wanted.key else None
    if contrast.positive_key is not None:
        return sums.key
    pull = pulls[1] if contrast.stopped else sum(pulls[1:], start=pulls[0])
    parts = pull[:, None] * work.query
    if contrast.positive is None:
        sums.key[: len(parts)] -= parts
        return sums.key
    # Unlike index_add_, this sorts on CUDA: queries that share a positive are added in one order.
    return sums.key.index_put_((contrast.positive,), -parts, accumulate=True)


def _positive_key_gradient(
    contrast: Contrast, work: Work, wanted: Wanted, pull: Tensor
) -> Tensor | None:
    if not wanted.positive_key or contrast.positive_key is None:
        return None
    return -(0.0 if contrast.stopped else pull[:, None]) * work.query.float()


def _hard_gradient(
    contrast: Contrast, work: Work, wanted: Wanted, weights: Tensor | None, rate: Tensor
) -> Tensor | None:
    if not wanted.hard or weights is None:
        return None
    weights = torch.zeros_like(weights) if contrast.stopped else weights * rate
    return weights[:, :, None] * work.query[:, None, :]


__all__ = ["Direction", "assembled"]

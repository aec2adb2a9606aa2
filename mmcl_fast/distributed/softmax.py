"""The softmax forms over several processes: one exchange for statistics, one for gradients.

Each rank scores its local queries against all keys. Of a tile, the statistics of queries stay, and
those of keys return to their rank with the exchange; so do the gradients of keys. Tiles off the
diagonal have no positives; the diagonal tile adds them. Mean scores, of the supervised loss and of
label smoothing, are added up on the same trips (`mean_scores.py`).

Cost in products of 2 * (local rows) * (whole batch) * D flop, on each rank: forward 1; backward 1
and 1 more for each of query and key, symmetric or not; with the gradient stopped 2 a direction;
with one set of rows (NT-Xent and its relatives) 3 in all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmcl_fast.distributed.exchange import Exchange, Payload
from mmcl_fast.distributed.extra_negatives import extra_gradients, extra_statistics
from mmcl_fast.distributed.gradient_sums import added, plus
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.mean_scores import MeanScores
from mmcl_fast.distributed.off_diagonal import remote_gradients, remote_statistics
from mmcl_fast.distributed.own_rows import (
    pair_statistics,
    rows_of_ranks,
    sum_of_pair_gradients,
)
from mmcl_fast.distributed.problem import LocalProblem
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested
from mmcl_fast.losses.torch_backend import contrast_backward, contrast_forward
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics

Pair = tuple[Tensor, Tensor]


def softmax_statistics(
    problem: LocalProblem, members: Members, exchange: type[Exchange]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The sum of this rank's row losses, and statistics of its rows over the whole batch.

    Args:
        problem: Of this rank.
        members: The ranks.
        exchange: Kind of the exchange.
    """
    local = problem.contrast
    started = exchange(members, problem.payload)
    sides = _sides(local, contrast_forward(local, Requested(query=True), None).statistics)
    means = MeanScores.start(problem)

    def visit(payload: Payload) -> Tensor | None:
        if local.key is None:
            for other in rows_of_ranks(members, started.visiting, payload[0]):
                _merge(sides[0], pair_statistics(local, other))
            columns = None
        else:
            rows, columns = remote_statistics(_tile(local, payload))
            _merge(sides[0], rows)
        sums = None if means is None else means.add(payload[0], means.pairs(payload))
        if columns is None:
            return None
        if sums is None:
            return torch.stack(columns, dim=1)
        return torch.stack((*columns, sums.to(local.dtype)), dim=1)

    returned = started.run(visit, _merged)
    if returned is not None:
        max_score, exp_sum, *sums = returned.unbind(dim=1)
        _merge(sides[1], (max_score, exp_sum))
        if means is not None:
            means.totals[1] = means.totals[1] + sums[0]
    if problem.extra is not None:
        for of_extra in extra_statistics(problem, members, exchange, means):
            _merge(sides[0], of_extra)
    losses = [side.losses() for side in sides] if means is None else means.losses(sides)
    statistics = tuple(x for side in sides for x in side.saved())
    if means is not None:
        statistics = (*statistics, *means.saved())
    return torch.stack([x.sum() for x in losses]).mean(), statistics


def softmax_gradients(
    problem: LocalProblem,
    members: Members,
    exchange: type[Exchange],
    requested: Requested,
    extra_learns: bool,  # noqa: FBT001 - beside `requested`
    weight: float,
    saved: tuple[Tensor, ...],
) -> tuple[Gradients, Tensor | None]:
    """Gradients of the sum of all ranks' row losses, each times the `weight` of its rank.

    Returns: Gradients of this rank's rows, which are complete, and this rank's share of that of the
        temperature; that of its extra negatives, if `extra_learns`.
    """
    local, weights = problem.contrast, _Weights.of(problem, weight, saved)
    means = weights.means
    sent = () if weights.columns is None else (weights.columns,)
    started = exchange(members, (*problem.payload, *sent))
    gradients = _diagonal(local, requested, weights.statistics, weights.row_weight)
    if means is not None:
        gradients = added(gradients, means[0].own_gradients(requested, weights.row_weight))

    def visit(payload: Payload) -> Tensor | None:
        nonlocal gradients
        columns = None if weights.columns is None else payload[-1].T.contiguous()
        of_keys = None if columns is None else (columns[0], columns[1])
        if local.key is None:
            assert of_keys is not None
            others = rows_of_ranks(members, started.visiting, payload[0])
            part = sum_of_pair_gradients(local, others, requested, weights.rows, of_keys)
        else:
            part = _tile_gradients(_tile(local, payload), requested, weights.rows, of_keys)
        if means is not None:
            pairs, rows = means[0].pairs(payload), means[1]
            key_rows = columns[2] if columns is not None and local.symmetric else None
            linear = means[0].gradients(payload[0], pairs, requested, rows, key_rows)
            part = added(part, linear)
        if local.key is None and part.temperature is not None:
            # The tile of the other rank has each pair, too.
            part = part._replace(temperature=part.temperature / 2)
        gradients = added(gradients, part._replace(key=None))
        return part.key

    returned = started.run(visit, torch.Tensor.add_)
    gradients = gradients._replace(key=plus(gradients.key, returned))
    if problem.extra is None:
        return gradients, None
    requested = requested._replace(key=extra_learns)
    part, of_extra = extra_gradients(problem, members, exchange, requested, weights.rows, means)
    return added(gradients, part), of_extra


@dataclass(frozen=True)
class _Weights:
    """Of the scores in the loss, from what the first trip found.

    Attributes:
        statistics: Of both directions, three each.
        row_weight: Of each row loss of this rank, [n].
        rows: (max_score, scale) of the queries, see `remote_gradients`.
        columns: Of the keys as queries, for their tiles on other ranks, [n, 2], with the weights of
            mean scores [n, 3]; None where the keys are not queries, too.
        means: The mean scores in the loss and their `weights`.
    """

    statistics: tuple[Tensor, ...]
    row_weight: Tensor
    rows: Pair
    columns: Tensor | None
    means: tuple[MeanScores, Tensor] | None

    @classmethod
    def of(cls, problem: LocalProblem, weight: float, saved: tuple[Tensor, ...]) -> _Weights:
        """From the results of `softmax_statistics`."""
        local = problem.contrast
        size = 6 if local.symmetric else 3
        statistics, scores = saved[:size], MeanScores.of(problem, saved[size:])
        row_weight, means = torch.full_like(statistics[0], weight), None
        if scores is not None:
            row_weight = scores.row_weight(weight).to(local.dtype)
            means = scores, scores.weights(row_weight).to(local.dtype)
        sides = _sides(local, statistics)
        scales = [(side.max_score, side.scale() * (row_weight / len(sides))) for side in sides]
        columns = None
        if local.key is None or local.symmetric:
            columns = torch.stack((*scales[-1], *(() if means is None else means[1:])), dim=1)
        return cls(statistics, row_weight, scales[0], columns, means)


def _tile_gradients(
    tile: Contrast, requested: Requested, rows: Pair, columns: Pair | None
) -> Gradients:
    """Through the negatives of a tile; see `remote_gradients`."""
    if not (tile.stopped and tile.symmetric):
        return remote_gradients(tile, requested, rows, columns)
    assert columns is not None
    part = remote_gradients(tile, requested._replace(key=False), rows, None)
    mirrored = remote_gradients(_mirrored(tile), _as_query(requested), columns, None)
    return added(part, mirrored._replace(key=mirrored.query, query=None))


def _tile(local: Contrast, payload: Payload) -> Contrast:
    """This rank's queries against the keys of other ranks."""
    labels = None if local.labels is None else (local.labels[0], payload[1])
    return replace(
        local,
        key=payload[0],
        positive=None,
        positive_key=None,
        hard=None,
        labels=labels,
        exclude_self=False,
    )


def _mirrored(contrast: Contrast) -> Contrast:
    """Query and key exchanged, in one direction."""
    assert contrast.key is not None
    labels = None if contrast.labels is None else contrast.labels[::-1]
    return replace(contrast, query=contrast.key, key=contrast.query, labels=labels, symmetric=False)


def _as_query(requested: Requested) -> Requested:
    """The request for the mirrored contrast, with the gradient of its key stopped."""
    return requested._replace(query=requested.key, key=False)


def _diagonal(
    local: Contrast, requested: Requested, statistics: tuple[Tensor, ...], upstream: Tensor
) -> Gradients:
    """Gradients through this rank's keys, positives included."""
    if not (local.stopped and local.symmetric):
        return contrast_backward(local, requested, statistics, upstream)
    one_way, upstream = replace(local, symmetric=False), upstream / 2
    rows = contrast_backward(one_way, requested._replace(key=False), statistics[:3], upstream)
    columns = contrast_backward(_mirrored(one_way), _as_query(requested), statistics[3:], upstream)
    return added(rows, columns._replace(key=columns.query, query=None))


def _sides(local: Contrast, statistics: tuple[Tensor, ...]) -> list[RowStatistics]:
    """Copies, as other statistics will be merged into them."""
    return [
        RowStatistics.of(local.form, tuple(x.clone() for x in statistics[k : k + 3]))
        for k in range(0, len(statistics), 3)
    ]


def _merge(side: RowStatistics, added: tuple[Tensor, ...]) -> None:
    """Add (max_score, exp_sum) of other negatives."""
    max_score, exp_sum = added
    new_max = torch.maximum(side.max_score, max_score)
    side.merge(slice(None), new_max, exp_sum * torch.exp2(max_score - new_max))


def _merged(first: Tensor, second: Tensor) -> Tensor:
    """Two (max_score, exp_sum, perhaps a sum of scores) [rows, 2 or 3], merged."""
    max_score = torch.maximum(first[:, 0], second[:, 0])
    sums = (x[:, 1] * torch.exp2(x[:, 0] - max_score) for x in (first, second))
    merged = torch.stack([max_score, sum(sums, torch.zeros_like(max_score))], dim=1)
    return torch.cat([merged, first[:, 2:] + second[:, 2:]], dim=1)


__all__ = ["softmax_gradients", "softmax_statistics"]

"""The softmax forms over several processes: one exchange for statistics, one for gradients.

Each rank scores its local queries against all keys. Of a tile, the statistics of queries stay, and
those of keys return to their rank with the exchange; so do the gradients of keys. Tiles off the
diagonal have no positives; the diagonal tile adds them.

Cost in products of 2 * (local rows) * (whole batch) * D flop, on each rank: forward 1; backward 1
and 1 more for each of query and key, symmetric or not; with the gradient stopped 2 a direction;
NT-Xent 3 in all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmcl_fast.distributed.exchange import Exchange, Payload
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.off_diagonal import remote_gradients, remote_statistics
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested
from mmcl_fast.losses.torch_backend import contrast_backward, contrast_forward
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics

Pair = tuple[Tensor, Tensor]


def softmax_statistics(
    local: Contrast, members: Members, exchange: type[Exchange]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The sum of this rank's row losses, and statistics of its rows over the whole batch.

    Args:
        local: This rank's rows. With labels it needs `positive`, so that rows are not sorted by
            label.
        members: The ranks.
        exchange: Kind of the exchange.
    """
    started = exchange(members, _features(local))
    sides = _sides(local, contrast_forward(local, Requested(query=True), None).statistics)

    def visit(payload: Payload) -> Tensor | None:
        rows, columns = remote_statistics(_tile(local, payload))
        _merge(sides[0], rows)
        return None if columns is None else torch.stack(columns, dim=1)

    returned = started.run(visit, _merged)
    if returned is not None:
        _merge(sides[1], returned.unbind(dim=1))
    losses = torch.stack([side.losses().sum() for side in sides])
    return losses.mean(), tuple(x for side in sides for x in side.saved())


def softmax_gradients(
    local: Contrast,
    members: Members,
    exchange: type[Exchange],
    requested: Requested,
    weight: float,
    statistics: tuple[Tensor, ...],
) -> Gradients:
    """Gradients of `weight` times the sum of the row losses of all ranks.

    Gradients of this rank's rows are complete, that of the temperature this rank's share.
    """
    sides = _sides(local, statistics)
    direction_weight = weight / len(sides)
    scales = [(side.max_score, side.scale() * direction_weight) for side in sides]
    payload = _features(local)
    if local.key is None or local.symmetric:
        payload = (*payload, torch.stack(scales[-1], dim=1))
    started = exchange(members, payload)
    gradients = _diagonal(local, requested, statistics, weight)

    def visit(payload: Payload) -> Tensor | None:
        nonlocal gradients
        tile = _tile(local, payload)
        columns = None
        if local.key is None or local.symmetric:
            max_score, scale = payload[-1].T.contiguous()
            columns = max_score, scale
        if local.stopped and local.symmetric:
            part = remote_gradients(tile, requested._replace(key=False), scales[0], None)
            assert columns is not None
            mirrored = remote_gradients(_mirrored(tile), _as_query(requested), columns, None)
            part = part._replace(
                key=mirrored.query,
                temperature=_plus(_temperature_sum(part), _temperature_sum(mirrored)),
            )
        else:
            part = remote_gradients(tile, requested, scales[0], columns)
        temperature = _temperature_sum(part)
        if local.key is None and temperature is not None:
            temperature = temperature / 2  # the tile of the other rank has each pair, too
        gradients = gradients._replace(
            query=_plus(gradients.query, part.query),
            temperature=_plus(_temperature_sum(gradients), temperature),
        )
        return part.key

    returned = started.run(visit, torch.Tensor.add_)
    return gradients._replace(key=_plus(gradients.key, returned))


def _features(local: Contrast) -> Payload:
    """The payload for other ranks: keys, and their labels."""
    keys = local.query if local.key is None else local.key
    return (keys,) if local.labels is None else (keys, local.labels[1])


def _tile(local: Contrast, payload: Payload) -> Contrast:
    """This rank's queries against the keys of other ranks."""
    labels = None if local.labels is None else (local.labels[0], payload[1])
    return replace(local, key=payload[0], positive=None, labels=labels, exclude_self=False)


def _mirrored(contrast: Contrast) -> Contrast:
    """Query and key exchanged, in one direction."""
    assert contrast.key is not None
    labels = None if contrast.labels is None else contrast.labels[::-1]
    return replace(contrast, query=contrast.key, key=contrast.query, labels=labels, symmetric=False)


def _as_query(requested: Requested) -> Requested:
    """The request for the mirrored contrast, with the gradient of its key stopped."""
    return requested._replace(query=requested.key, key=False)


def _diagonal(
    local: Contrast, requested: Requested, statistics: tuple[Tensor, ...], weight: float
) -> Gradients:
    """Gradients through this rank's keys, positives included."""
    upstream = statistics[0].new_full(statistics[0].shape, weight)
    if not (local.stopped and local.symmetric):
        return contrast_backward(local, requested, statistics, upstream)
    one_way, upstream = replace(local, symmetric=False), upstream / 2
    rows = contrast_backward(one_way, requested._replace(key=False), statistics[:3], upstream)
    columns = contrast_backward(_mirrored(one_way), _as_query(requested), statistics[3:], upstream)
    return Gradients(
        query=rows.query,
        key=columns.query,
        temperature=_plus(_temperature_sum(rows), _temperature_sum(columns)),
    )


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
    """Two (max_score, exp_sum) [rows, 2], merged."""
    max_score = torch.maximum(first[:, 0], second[:, 0])
    sums = (x[:, 1] * torch.exp2(x[:, 0] - max_score) for x in (first, second))
    return torch.stack([max_score, sum(sums, torch.zeros_like(max_score))], dim=1)


def _temperature_sum(gradients: Gradients) -> Tensor | None:
    """The gradient of the temperature, summed over rows."""
    return None if gradients.temperature is None else gradients.temperature.sum()


def _plus(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return first if second is None else second
    return first + second


__all__ = ["softmax_gradients", "softmax_statistics"]

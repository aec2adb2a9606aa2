"""The softmax forms over several processes: statistics in one trip, gradients in a second.

Each rank scores its own queries against all keys. A tile's statistics of its queries stay here, and
those of its keys go home with the trip; so do the keys' gradients. Tiles off the diagonal hold no
positives, so the positives' part is the diagonal tile's alone.

Cost in products of 2 * (local rows) * (whole batch) * D flop, on each rank: forward 1; backward 1
and 1 more for each of query and key, symmetric or not; with the gradient stopped 2 a direction;
NT-Xent 3 in all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmcl_fast.distributed.exchange import Payload, Trip
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.off_diagonal import foreign_gradients, foreign_statistics
from mmcl_fast.losses.contrast import Contrast, Gradients, Wanted
from mmcl_fast.losses.torch_backend import contrast_backward, contrast_forward
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics

Pair = tuple[Tensor, Tensor]


def softmax_statistics(
    local: Contrast, members: Members, trip: type[Trip]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The sum of this rank's row losses, and statistics over the whole batch of its own rows.

    Args:
        local: This rank's rows alone. Statistics must be in their order, so with labels it needs
            `positive`, without which rows are sorted by label.
        members: Everyone.
        trip: How payloads travel.
    """
    started = trip(members, _features(local))
    sides = _sides(local, contrast_forward(local, Wanted(query=True), None).statistics)

    def visit(payload: Payload) -> Tensor | None:
        rows, columns = foreign_statistics(_tile(local, payload))
        _join(sides[0], rows)
        return None if columns is None else torch.stack(columns, dim=1)

    home = started.run(visit, _joined)
    if home is not None:
        _join(sides[1], home.unbind(dim=1))
    losses = torch.stack([side.losses().sum() for side in sides])
    return losses.mean(), tuple(x for side in sides for x in side.saved())


def softmax_gradients(
    local: Contrast,
    members: Members,
    trip: type[Trip],
    wanted: Wanted,
    weight: float,
    statistics: tuple[Tensor, ...],
) -> Gradients:
    """Gradients of `weight` times the sum of everyone's row losses.

    Those of this rank's rows are complete; temperature's is this rank's share.
    """
    sides = _sides(local, statistics)
    each = weight / len(sides)
    scales = [(side.top, side.scale() * each) for side in sides]
    feed = _features(local)
    if local.key is None or local.symmetric:
        feed = (*feed, torch.stack(scales[-1], dim=1))
    started = trip(members, feed)
    found = _diagonal(local, wanted, statistics, weight)

    def visit(payload: Payload) -> Tensor | None:
        nonlocal found
        tile = _tile(local, payload)
        columns = None
        if local.key is None or local.symmetric:
            top, scale = payload[-1].T.contiguous()
            columns = top, scale
        if local.stopped and local.symmetric:
            part = foreign_gradients(tile, wanted._replace(key=False), scales[0], None)
            assert columns is not None
            back = foreign_gradients(_mirror(tile), _as_query(wanted), columns, None)
            part = part._replace(key=back.query, temperature=_plus(_total(part), _total(back)))
        else:
            part = foreign_gradients(tile, wanted, scales[0], columns)
        temperature = _total(part)
        if local.key is None and temperature is not None:
            temperature = temperature / 2  # every pair is also in its key's tile
        found = found._replace(
            query=_plus(found.query, part.query),
            temperature=_plus(_total(found), temperature),
        )
        return part.key

    home = started.run(visit, torch.Tensor.add_)
    return found._replace(key=_plus(found.key, home))


def _features(local: Contrast) -> Payload:
    """What others need of this rank: its keys, and their labels."""
    keys = local.query if local.key is None else local.key
    return (keys,) if local.labels is None else (keys, local.labels[1])


def _tile(local: Contrast, payload: Payload) -> Contrast:
    """This rank's queries against the keys of others."""
    labels = None if local.labels is None else (local.labels[0], payload[1])
    return replace(local, key=payload[0], positive=None, labels=labels, exclude_self=False)


def _mirror(contrast: Contrast) -> Contrast:
    """Query and key in each other's place, one way."""
    assert contrast.key is not None
    labels = None if contrast.labels is None else contrast.labels[::-1]
    return replace(contrast, query=contrast.key, key=contrast.query, labels=labels, symmetric=False)


def _as_query(wanted: Wanted) -> Wanted:
    """The same wish in the mirror, where the gradient of the key is stopped."""
    return wanted._replace(query=wanted.key, key=False)


def _diagonal(
    local: Contrast, wanted: Wanted, statistics: tuple[Tensor, ...], weight: float
) -> Gradients:
    """Through this rank's own keys, positives included."""
    upstream = statistics[0].new_full(statistics[0].shape, weight)
    if not (local.stopped and local.symmetric):
        return contrast_backward(local, wanted, statistics, upstream)
    one_way, upstream = replace(local, symmetric=False), upstream / 2
    rows = contrast_backward(one_way, wanted._replace(key=False), statistics[:3], upstream)
    columns = contrast_backward(_mirror(one_way), _as_query(wanted), statistics[3:], upstream)
    return Gradients(
        query=rows.query,
        key=columns.query,
        temperature=_plus(_total(rows), _total(columns)),
    )


def _sides(local: Contrast, statistics: tuple[Tensor, ...]) -> list[RowStatistics]:
    """Own copies: they are going to be merged into."""
    return [
        RowStatistics.of(local.form, tuple(x.clone() for x in statistics[k : k + 3]))
        for k in range(0, len(statistics), 3)
    ]


def _join(side: RowStatistics, more: tuple[Tensor, ...]) -> None:
    """Add sums taken relative to other tops."""
    top, total = more
    raised = torch.maximum(side.top, top)
    side.merge(slice(None), raised, total * torch.exp2(top - raised))


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Two (top, total) [rows, 2] as one."""
    top = torch.maximum(first[:, 0], second[:, 0])
    totals = (x[:, 1] * torch.exp2(x[:, 0] - top) for x in (first, second))
    return torch.stack([top, sum(totals, torch.zeros_like(top))], dim=1)


def _total(found: Gradients) -> Tensor | None:
    """The temperature's gradient, summed over rows if it is not yet."""
    return None if found.temperature is None else found.temperature.sum()


def _plus(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return first if second is None else second
    return first + second


__all__ = ["softmax_gradients", "softmax_statistics"]

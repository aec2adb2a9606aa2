"""Extra negatives: those of every rank are negatives of every query of the whole batch.

They make trips of their own, after the keys: this rank's meet its queries at home, the others come
by, and take the gradient home with them. They have no labels and are nobody's positive.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmcl_fast.distributed.exchange import Exchange, Payload, Visit
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.mean_scores import MeanScores
from mmcl_fast.distributed.off_diagonal import remote_gradients, remote_statistics
from mmcl_fast.distributed.problem import LocalProblem
from mmcl_fast.distributed.score_sums import Pair, SelectedPairs
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested

ALL_PAIRS = SelectedPairs(None)


def extra_statistics(
    problem: LocalProblem, members: Members, exchange: type[Exchange], means: MeanScores | None
) -> list[Pair]:
    """(max_score, exp_sum) of this rank's queries over the extra negatives of some ranks each.

    Their scores are added to `means`.
    """
    found: list[Pair] = []

    def visit(payload: Payload) -> None:
        (extra,) = payload
        if not len(extra):
            return
        found.append(remote_statistics(_tile(problem.contrast, extra))[0])
        if means is not None:
            means.add(extra, ALL_PAIRS)

    _trip(problem, members, exchange, visit)
    return found


def extra_gradients(
    problem: LocalProblem,
    members: Members,
    exchange: type[Exchange],
    requested: Requested,
    rows: Pair,
    mean_rows: tuple[MeanScores, Tensor] | None,
) -> list[Gradients]:
    """Through the extra negatives of some ranks each.

    Args:
        problem: Of this rank.
        members: The ranks.
        exchange: Kind of the exchange.
        requested: Of query, temperature, and as "key" of this rank's extra negatives.
        rows: See `remote_gradients`.
        mean_rows: The mean scores of the loss and their `weights`, or None.

    Returns: Parts of the gradients of query and temperature; in the last one, as "key", the whole
        gradient of this rank's extra negatives.
    """
    local, found = problem.contrast, list[Gradients]()

    def visit(payload: Payload) -> Tensor | None:
        (extra,) = payload
        if not len(extra):
            return extra.to(local.dtype) if requested.key else None
        part = remote_gradients(_tile(local, extra), requested, rows, None)
        found.append(part._replace(key=None))
        of_extra = part.key
        if mean_rows is not None:
            means, weights = mean_rows
            linear = means.gradients(extra, ALL_PAIRS, requested, weights, None)
            found.append(linear._replace(key=None))
            of_extra = None if of_extra is None or linear.key is None else of_extra + linear.key
        return of_extra

    own = _trip(problem, members, exchange, visit)
    return [*found, Gradients(key=own)]


def _trip(
    problem: LocalProblem,
    members: Members,
    exchange: type[Exchange],
    visit: Visit,
) -> Tensor | None:
    """Visits all ranks' extra negatives; returns the sum of the results for this rank's."""
    assert problem.extra is not None
    payload = (problem.extra,)
    if not any(members.extra):
        return visit(payload)
    started = exchange(replace(members, rows=members.extra), payload)
    own = visit(payload)
    returned = started.run(visit, torch.Tensor.add_)
    return own if own is None or returned is None else own + returned


def _tile(local: Contrast, extra: Tensor) -> Contrast:
    return replace(local, key=extra, positive=None, labels=None, hard=None)


__all__ = ["extra_gradients", "extra_statistics"]

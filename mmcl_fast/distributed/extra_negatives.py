"""Extra negatives: those of every rank are negatives of every query of the whole batch.

They make trips of their own, after the keys: this rank's meet its queries at home, the others come
by, and take the gradient home with them. They have no labels and are nobody's positive.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmcl_fast.distributed.exchange import Exchange, Payload, Visit
from mmcl_fast.distributed.gradient_sums import added
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
    means: tuple[MeanScores, Tensor] | None,
) -> tuple[Gradients, Tensor | None]:
    """Through all ranks' extra negatives.

    Args:
        problem: Of this rank.
        members: The ranks.
        exchange: Kind of the exchange.
        requested: Of query, temperature, and as "key" of this rank's extra negatives.
        rows: See `remote_gradients`.
        means: The mean scores in the loss and their `weights`, or None.

    Returns: Parts of the gradients of query and temperature, and the whole gradient of this rank's
        extra negatives.
    """
    local, gradients = problem.contrast, Gradients()

    def visit(payload: Payload) -> Tensor | None:
        nonlocal gradients
        (extra,) = payload
        if not len(extra):
            return extra.to(local.dtype) if requested.key else None
        part = remote_gradients(_tile(local, extra), requested, rows, None)
        if means is not None:
            scores, weights = means
            part = added(part, scores.gradients(extra, ALL_PAIRS, requested, weights, None))
        gradients = added(gradients, part._replace(key=None))
        return part.key

    own = _trip(problem, members, exchange, visit)
    return gradients, own


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

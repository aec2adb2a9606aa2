"""The order in which shards are computed, and their division among the jobs of an array."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.plan.shards import seconds_of


def shard_seconds(plan: Plan) -> npt.NDArray[np.float64]:
    """Estimated work of each shard in seconds of one core, [shards]."""
    of_run = seconds_of(plan.points, len(plan.metrics))[plan.point_of]
    return np.bincount(plan.shard_of, of_run, plan.shards).astype(np.float64, copy=False)


def chosen_shards(plan: Plan, part: tuple[int, int] | None) -> list[int]:
    """Shards of part (i, N) of a sweep, the longest first; each shard is in one of the N parts.

    The longest first, so that no worker is left with one while the others have nothing to do. The
    parts have about equal work: a shard, the longest first, goes to the part that has the least.
    """
    seconds = shard_seconds(plan)
    order: list[int] = np.argsort(-seconds, kind="stable").tolist()
    index, count = part or (1, 1)
    if count == 1:
        return order
    loads = [(0.0, k) for k in range(1, count + 1)]
    chosen = []
    for shard in order:
        load, k = loads[0]
        heapq.heapreplace(loads, (load + float(seconds[shard]), k))
        if k == index:
            chosen.append(shard)
    return chosen


__all__ = ["chosen_shards", "shard_seconds"]

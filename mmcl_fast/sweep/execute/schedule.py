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
    if part is None:
        return order
    index, count = part
    jobs = _jobs_of(seconds, order, count)
    return [shard for shard in order if jobs[shard] == index - 1]


def job_seconds(plan: Plan, jobs: int, cores: int) -> float:
    """Estimated time of the longest of the jobs that share a plan, in seconds.

    Args:
        plan: The plan.
        jobs: Number of jobs, each of which computes `chosen_shards(plan, (k, jobs))`.
        cores: Shards that a job computes at a time.
    """
    seconds = shard_seconds(plan)
    order = chosen_shards(plan, None)
    job_of = _jobs_of(seconds, order, jobs)
    ends = [[0.0] * cores for _ in range(jobs)]
    for shard in order:
        free = ends[job_of[shard]]
        heapq.heapreplace(free, free[0] + float(seconds[shard]))
    return max(map(max, ends))


def _jobs_of(seconds: npt.NDArray[np.float64], order: list[int], jobs: int) -> list[int]:
    """Job of each shard, [shards]: the longest first, to the one that has least work."""
    loads = [(0.0, k) for k in range(jobs)]
    job_of = [0] * len(order)
    for shard in order:
        load, k = loads[0]
        heapq.heapreplace(loads, (load + float(seconds[shard]), k))
        job_of[shard] = k
    return job_of


__all__ = ["chosen_shards", "job_seconds", "shard_seconds"]

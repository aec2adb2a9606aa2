"""Partition of runs into shards, each computed by one worker and written as one file.

The partition depends on the settings alone, so every machine derives the same one.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines import core_seconds
from mmcl_fast.sweep.plan.point_table import Points
from mmcl_fast.sweep.plan.points import SIZES

SHARD_SECONDS = 8.0
"""Work of a shard: much longer than its overhead, short enough to lose to a dead worker."""
SHARD_RUNS = 1024
SHARD_BYTES = 1 << 28  # curves, held in memory until the shard is written
LEAST_SHARDS = 256  # a short sweep has smaller shards, to occupy 32 workers to the end
SEPARATE_SHAPES = 16  # so many have shards of their own, to occupy several workers
LEAST_SECONDS = 0.25
SMALL_SHARE = 0.5  # of a shard; a shape of less shares one
SHAPE_SECONDS = 2e-3  # overhead of a batch
METRIC_FLOPS = 4e10  # rate of one core
METRIC_SECONDS = 2e-4  # overhead of an own metric at an epoch
SHAPE = tuple(name for name in SIZES if name not in ("d", "d_b"))
"""Settings on which array shapes depend in coefficient space."""


def run_seconds(cfg: TrainConfig, metrics: int = 0) -> float:
    """Estimated seconds of one core for a run with a number of own metrics."""
    # Features of the training samples, as an own metric may compute them.
    metric_seconds = METRIC_SECONDS + 2.0 * cfg.n * cfg.m * cfg.columns / METRIC_FLOPS
    measuring = metrics * (cfg.epochs + 1) * metric_seconds
    return core_seconds(cfg, cfg.engine) + measuring


def seconds_of(points: Points, metrics: int = 0) -> npt.NDArray[np.float64]:
    """`run_seconds` of each point, [points]."""
    column = points.mapped(partial(run_seconds, metrics=metrics), SIZES)
    return np.array(column.values)[column.codes]


def cut(
    points: Points,
    point_of: npt.NDArray[np.int32],
    first: int = 0,
    *,
    metrics: int = 0,
) -> npt.NDArray[np.int32]:
    """Shard of each run, about `SHARD_SECONDS` each.

    Runs of equal shapes are together. Of more than `SEPARATE_SHAPES` shapes those whose runs fill
    no shard share one, if engine and device are equal.

    Args:
        points: Settings.
        point_of: Index of each run's settings, [runs].
        first: Number of the first shard.
        metrics: Number of own metrics.
    """
    members, class_of = points.classes(SHAPE)
    shapes, of_run = points.take(members), class_of[point_of]
    seconds = seconds_of(points, metrics)[point_of]
    target = min(SHARD_SECONDS, max(LEAST_SECONDS, float(seconds.sum()) / LEAST_SHARDS))
    totals = np.bincount(of_run, seconds, len(members))
    counts = np.bincount(of_run, minlength=len(members))
    most_runs = shapes.mapped(partial(_most_runs, metrics=metrics), ("epochs", "dtype"))
    most = np.array(most_runs.values)[most_runs.codes]
    shares = np.maximum((totals + SHAPE_SECONDS) / target, counts / most)  # of a shard

    shard = first
    shared = np.full(len(members), -1, np.int32)  # the shard of a shape that has none of its own
    _, kinds = shapes.classes(("engine", "device"))
    filled: dict[int, tuple[int, float]] = {}
    is_small = (counts > 0) & (shares <= SMALL_SHARE)
    if np.count_nonzero(counts) <= SEPARATE_SHAPES:
        is_small[:] = False
    small = np.flatnonzero(is_small)
    for k, kind, share in zip(
        small.tolist(), kinds[small].tolist(), shares[small].tolist(), strict=True
    ):
        number, before = filled.get(kind, (-1, 1.0))
        if before + share > 1:
            number, before, shard = shard, 0.0, shard + 1
        filled[kind] = number, before + share
        shared[k] = number
    shard_of = shared[of_run]

    order = np.argsort(of_run, kind="stable")
    ends = np.cumsum(counts)
    for k in np.flatnonzero((counts > 0) & ~is_small).tolist():
        runs = order[ends[k] - counts[k] : ends[k]]
        pieces = max(round(float(totals[k]) / target), -(-len(runs) // int(most[k])), 1)
        pieces = min(pieces, np.iinfo(np.int32).max)  # a run for which no time would be enough
        used, index = np.unique(_pieces(seconds[runs], pieces), return_inverse=True)
        shard_of[runs] = shard + index.astype(np.int32)
        shard += len(used)
    return shard_of


def _pieces(cost: npt.NDArray[np.float64], pieces: int) -> npt.NDArray[np.int32]:
    """Piece of each run of a shape; a run goes where its midpoint lies."""
    midpoint = np.cumsum(cost) - cost / 2
    index: npt.NDArray[np.int32] = (midpoint / cost.sum() * pieces).astype(np.int32)
    return np.minimum(index, pieces - 1)


def _most_runs(cfg: TrainConfig, metrics: int) -> int:
    """Largest number of runs in a shard, each with four curves and its metrics."""
    curves = (cfg.epochs + 1) * (4 * (4 if cfg.dtype == "float32" else 8) + 8 * metrics)
    return min(SHARD_RUNS, max(1, SHARD_BYTES // curves))


__all__ = ["SHAPE", "cut", "run_seconds", "seconds_of"]

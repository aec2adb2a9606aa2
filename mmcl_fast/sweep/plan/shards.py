"""Partition of runs into shards, each computed by one worker and written as one file.

The partition depends on the settings alone, so every machine derives the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines import flop

SHARD_SECONDS = 8.0
"""Work of a shard: much longer than its overhead, short enough to lose to a dead worker."""
SHARD_RUNS = 1024
SHARD_BYTES = 1 << 28  # curves, held in memory until the shard is written
LEAST_SHARDS = 16  # a short sweep has smaller shards, to occupy several workers
LEAST_SECONDS = 0.25
# Rough rates of one core, flop/s, only to balance shards.
RATES = {"native": 1.5e11, "gram": 4e10, "primal": 1e11, "reference": 1e10}
DEFAULT_RATE = 4e10
RUN_SECONDS, EVALUATION_SECONDS = 1e-3, 1e-4  # overhead of a run, and of an evaluation
METRIC_SECONDS = 2e-4  # overhead of an own metric at an epoch
SAMPLE_SETTINGS = frozenset(
    {"seed", "data_seed", "init_seed", "d", "d_b", "mu_norm", "mu_b_norm", "nu_norm", "sigma_xi",
     "sigma_xi_b", "sigma_eps", "sigma_0", "tau", "eta"}
)  # fmt: skip
"""Settings that no array shape depends on in coefficient space."""


def run_seconds(cfg: TrainConfig, metrics: int = 0) -> float:
    """Estimated seconds of one core for a run with a number of own metrics."""
    evaluations = cfg.epochs // cfg.evaluate_every + 1 if cfg.evaluate_every else 0
    rate = RATES.get(cfg.engine, DEFAULT_RATE)
    # Features of the training samples, as an own metric may compute them.
    metric_seconds = METRIC_SECONDS + 2.0 * cfg.n * cfg.m * cfg.columns / DEFAULT_RATE
    measuring = metrics * (cfg.epochs + 1) * metric_seconds
    return flop(cfg, cfg.engine) / rate + RUN_SECONDS + evaluations * EVALUATION_SECONDS + measuring


def cut(
    points: Sequence[TrainConfig],
    point_of: npt.NDArray[np.int32],
    first: int = 0,
    *,
    metrics: int = 0,
) -> npt.NDArray[np.int32]:
    """Shard of each run: runs of equal shapes together, about `SHARD_SECONDS` each.

    Args:
        points: Settings.
        point_of: Index of each run's settings, [runs].
        first: Number of the first shard.
        metrics: Number of own metrics.
    """
    classes: dict[tuple[object, ...], int] = {}
    class_of = np.array([classes.setdefault(_shape(cfg), len(classes)) for cfg in points])
    seconds = np.array([run_seconds(cfg, metrics) for cfg in points])
    order = np.argsort(class_of[point_of], kind="stable")
    total_seconds = float(seconds[point_of].sum())
    target = min(SHARD_SECONDS, max(LEAST_SECONDS, total_seconds / LEAST_SHARDS))
    shard_of = np.empty(len(point_of), np.int32)
    shard, start = first, 0
    sorted_classes = class_of[point_of][order]
    for stop in [*np.flatnonzero(np.diff(sorted_classes)) + 1, len(order)]:
        members = order[start:stop]
        cost = seconds[point_of[members]]
        # A run goes where its midpoint lies, so shards of a class differ by one run at most.
        midpoint = np.cumsum(cost) - cost / 2
        most = _most_runs(points[point_of[members[0]]], metrics)
        pieces = max(1, round(float(cost.sum()) / target), -(-len(members) // most))
        pieces = min(pieces, np.iinfo(np.int32).max)  # a run for which no time would be enough
        index = np.minimum((midpoint / cost.sum() * pieces).astype(np.int32), pieces - 1)
        used, index = np.unique(index, return_inverse=True)
        shard_of[members] = shard + index.astype(np.int32)
        shard, start = shard + len(used), stop
    return shard_of


def _most_runs(cfg: TrainConfig, metrics: int) -> int:
    """Largest number of runs in a shard, each with four curves and its metrics."""
    curves = (cfg.epochs + 1) * (4 * (4 if cfg.dtype == "float32" else 8) + 8 * metrics)
    return min(SHARD_RUNS, max(1, SHARD_BYTES // curves))


def _shape(cfg: TrainConfig) -> tuple[object, ...]:
    return tuple(value for name, value in cfg.to_dict().items() if name not in SAMPLE_SETTINGS)


__all__ = ["cut", "run_seconds"]

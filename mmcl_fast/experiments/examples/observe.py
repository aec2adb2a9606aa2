"""Training of an example's runs, with numbers of their last epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from mmcl_fast.config import TrainConfig
from mmcl_fast.training import EpochInfo, RunState, train_many
from mmcl_fast.training.run import Run

Told = Callable[[int], None]
Metric = Callable[[RunState], float]


def trained(
    configs: Sequence[TrainConfig],
    told: Told,
    *,
    metrics: Mapping[str, Metric] | None = None,
    at_end: Mapping[str, Metric] | None = None,
) -> tuple[list[Run], dict[str, list[float]]]:
    """Train runs side by side.

    Args:
        configs: Settings, all different.
        told: Told the run-epochs done since the last call.
        metrics: Curves, as for `train_many`.
        at_end: Functions of a run at its last epoch.

    Returns: The runs, and for each name of `at_end` a number of each run, in order.
    """
    found: dict[TrainConfig, dict[str, float]] = {}

    def watch(info: EpochInfo) -> None:
        told(len(info.configs))
        if at_end and info.epoch == info.epochs:
            for state in info.runs:
                found[state.config] = {name: metric(state) for name, metric in at_end.items()}

    runs = train_many(configs, on_epoch=watch, metrics=metrics)
    nothing = dict.fromkeys(at_end or {}, math.nan)  # of runs that all diverged before
    last = [found.get(run.config, nothing) for run in runs]
    return runs, {name: [values[name] for values in last] for name in at_end or {}}


def diverged(runs: Sequence[Run]) -> int:
    """Number of runs whose loss became non-finite."""
    return sum(run.status == "diverged" for run in runs)


__all__ = ["Metric", "Told", "diverged", "trained"]

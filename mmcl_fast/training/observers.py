"""Callbacks and metrics of a batch in training: their arguments, and one epoch with them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mmcl_fast.config import FIELD_NAMES, TrainConfig
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import Engine, Measured
from mmcl_fast.errors import ConfigError
from mmcl_fast.training.epoch_info import EpochInfo, EpochStep, RunState
from mmcl_fast.training.recorder import CURVES, Recorder

Callback = Callable[[EpochInfo], object]
Metric = Callable[[RunState], object]
STOP = "stop"
RESERVED = frozenset({*CURVES, *FIELD_NAMES, "epoch", "status", "error", "diverged_at"})


def check_callback(on_epoch: Callback | None) -> None:
    """Raise ConfigError for what is no function."""
    if on_epoch is not None and not callable(on_epoch):
        raise ConfigError(f"on_epoch: expected a function of an EpochInfo, got {on_epoch!r}")


def check_metrics(metrics: Mapping[str, Metric] | None) -> dict[str, Metric]:
    """Metrics by name.

    Raises: ConfigError: no mapping from names to functions, or a name that is taken.
    """
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise ConfigError(f"metrics: expected a mapping from names to functions, got {metrics!r}")
    for name, function in metrics.items():
        check_metric_name(name)
        if not callable(function):
            raise ConfigError(f"metrics: expected a function as {name}, got {function!r}")
    return dict(metrics)


def check_metric_name(name: object) -> None:
    """Raise ConfigError unless a metric may have this name: it names a column of a store."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"metrics: expected names of the form my_metric_2, got {name!r}")
    if name in RESERVED or name.startswith("final_"):
        raise ConfigError(f"metrics: expected a name that no curve or setting has, got {name!r}")


class Observers:
    """A callback and metrics, called at every epoch of a batch.

    Args:
        on_epoch: The callback.
        metrics: Metrics by name (`check_metrics`).
        configs: Settings of the runs.
        data: Their data.
        recorder: Takes the metrics, and the runs that end.
    """

    def __init__(
        self,
        on_epoch: Callback | None,
        metrics: Mapping[str, Metric],
        configs: Sequence[TrainConfig],
        data: Sequence[SignalNoiseData],
        recorder: Recorder,
    ) -> None:
        self._on_epoch, self._metrics = on_epoch, metrics
        self._configs, self._data, self._recorder = configs, data, recorder

    def __bool__(self) -> bool:
        return self._on_epoch is not None or bool(self._metrics)

    def step(self, engine: Engine, epoch: int, last: int) -> Measured:
        """Measure one epoch, call metrics and callback, and train it unless all runs end here."""
        step = EpochStep(engine, epoch, last)
        info = EpochInfo(step, self._configs, self._data, self._recorder)
        for name, metric in self._metrics.items():
            values = [
                math.nan if self._recorder.has_stopped(r) else _number(name, metric(run))
                for r, run in enumerate(info.runs)
            ]
            self._recorder.record_metric(name, epoch, values)
        if self._on_epoch is not None:
            ending = self._ending(self._on_epoch(info))
            if ending:
                with step.state() as at_epoch:
                    self._recorder.stop(ending, epoch, at_epoch)
        return step.stop() if self._recorder.all_stopped else step.close()

    def _ending(self, answer: object) -> list[int]:
        """Runs that end by the answer of a callback; other values than these are no answer."""
        runs = range(len(self._configs))
        if isinstance(answer, str):
            if answer != STOP:
                raise ConfigError(f'on_epoch: expected "{STOP}" or None, got {answer!r}')
            return [r for r in runs if not self._recorder.has_stopped(r)]
        if isinstance(answer, Tensor) and answer.dtype == torch.bool:
            if answer.shape != (len(runs),):
                raise ConfigError(
                    f"on_epoch: expected a bool tensor [{len(runs)}] of the runs that end, got one "
                    f"of shape {list(answer.shape)}"
                )
            return [r for r in runs if answer[r] and not self._recorder.has_stopped(r)]
        return []


def _number(name: str, value: object) -> float:
    """The value of a metric: a number of Python or NumPy, or a tensor of one element."""
    array = value.detach() if isinstance(value, Tensor) else value
    size = getattr(array, "numel", lambda: getattr(array, "size", 1))()
    try:
        if size != 1 or isinstance(value, str | bytes) or np.iscomplexobj(array):  # type: ignore[arg-type]
            raise TypeError
        return float(array)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        shape = f" of shape {list(value.shape)}" if hasattr(value, "shape") else f" {value!r}"
        raise ConfigError(
            f"metrics: expected one number from {name}, got {type(value).__name__}{shape}"
        ) from None


__all__ = [
    "Callback",
    "Metric",
    "Observers",
    "check_callback",
    "check_metric_name",
    "check_metrics",
]

"""`train`: the loop over epochs, with measurements, evaluations and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.own_arrays import as_data, with_own_norms
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import ENGINES, Engine, EngineSpec, flop
from mmcl_fast.errors import ConfigError, EngineRefusedError
from mmcl_fast.progress import optional_progress
from mmcl_fast.training.checkpoint import Checkpoint
from mmcl_fast.training.epoch_info import advance
from mmcl_fast.training.observers import (
    Callback,
    Metric,
    Observers,
    check_callback,
    check_metrics,
)
from mmcl_fast.training.recorder import Recorder
from mmcl_fast.training.resolve import resolve
from mmcl_fast.training.run import Run

OwnData = SignalNoiseData | Mapping[str, Any]
THREADED_FLOP = 1e9  # of a step: some milliseconds of one core


def train(
    cfg: TrainConfig,
    data: OwnData | None = None,
    on_epoch: Callback | None = None,
    *,
    metrics: Mapping[str, Metric] | None = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = 100,
) -> Run:
    """Train one run by the paper's gradient descent (7), (10).

    Args:
        cfg: All settings.
        data: User-supplied data: a `SignalNoiseData`, or a mapping of some of its fields to arrays;
            what is not given is drawn (`mmcl_fast.data.from_arrays`). Default: all is drawn.
        on_epoch: Called with an `EpochInfo` before training and after each epoch. If it returns
            "stop" the run ends there and keeps its curves; an exception ends training and is yours.
        metrics: Further curves by name, lower case: functions from a `RunState` to a number, called
            before training and after each epoch. `mmcl_fast.metrics` has some.
        progress: Show the epochs done: a bar on a terminal, a line in a notebook or a log.
        checkpoint: File to resume from if it exists, written every `checkpoint_every` epochs. Its
            settings are those of `cfg`, but `epochs` may be more.
        checkpoint_every: Epochs between checkpoints, >= 1; None: about a minute between them.

    Returns: The run, whose config has the norms of given mu, mu_b and nu. Its status is "diverged",
        with the curves so far, if its loss becomes non-finite.
    Cost: A callback or a metric makes the engine train one epoch a call; `EpochInfo` says what each
        request adds.
    Raises: ConfigError, DataError, EngineRefusedError: before any work starts. OutputError: the
        checkpoint cannot be used or written.
    """
    check_config(cfg)
    check_callback(on_epoch)
    chosen_metrics = check_metrics(metrics)
    resolved, held = prepared(cfg, data)
    drawn = [held]
    checkpoint_file = None
    if checkpoint is not None:
        checkpoint_file = Checkpoint(
            Path(checkpoint), resolved, drawn[0], checkpoint_every, metrics=list(chosen_metrics)
        )
    with optional_progress(resolved.epochs, "epochs", shown=progress) as display:
        recorder = train_batch(
            [resolved],
            drawn,
            on_epoch,
            checkpoint_file,
            metrics=chosen_metrics,
            on_progress=None if display is None else partial(display.advance, "training"),
        )
    return recorder.runs(drawn if data is not None else [None])[0]


def prepared(cfg: TrainConfig, data: OwnData | None) -> tuple[TrainConfig, SignalNoiseData]:
    """Resolved settings and data of a run, each as the other needs it.

    Raises: EngineRefusedError: a named engine cannot train on a signal patch per sample.
    """
    if data is None:
        resolved = resolve(cfg)
        return resolved, as_data(resolved, None)
    held = as_data(cfg, data)
    if held.signal is not None and cfg.engine != "reference":
        if cfg.engine != "auto":
            raise EngineRefusedError(
                f"engine {cfg.engine}: data.signal has a patch for each sample, and this engine "
                "takes y_i mu; use reference"
            )
        cfg = cfg.replace(engine="reference")
    return with_own_norms(resolve(cfg), held), held


def check_config(cfg: object) -> None:
    """Raise ConfigError for what is no TrainConfig."""
    if not isinstance(cfg, TrainConfig):
        hint = "; take TrainConfig(**settings)" if isinstance(cfg, Mapping) else ""
        raise ConfigError(f"cfg: expected a TrainConfig, got {type(cfg).__name__} {cfg!r}{hint}")


def train_batch(
    configs: Sequence[TrainConfig],
    data: Sequence[SignalNoiseData],
    on_epoch: Callback | None = None,
    checkpoint_file: Checkpoint | None = None,
    build: Callable[[EngineSpec], Engine] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Recorder:
    """Train a batch of runs.

    Args:
        configs: Resolved settings; equal except for what the engine allows to differ.
        data: Data of each run.
        on_epoch: As for `train`.
        checkpoint_file: The checkpoint, for a single run.
        build: Makes the engine; default: the engine of the settings.
        metrics: As for `train`.
        on_progress: Told the number of updates so far, now and then; it costs no epoch.
    """
    cfg = configs[0]
    build = build or ENGINES[cfg.engine].build
    recorder = Recorder(configs, data, list(metrics or ()))
    observers = Observers(on_epoch, metrics or {}, configs, data, recorder)
    with compute_threads(cfg):
        engine = build(EngineSpec(configs, data, torch.device(cfg.device)))
        first = checkpoint_file.resume(engine, recorder) if checkpoint_file else 0
        epoch = first
        while epoch <= cfg.epochs:
            recorder.observe(epoch, engine)
            if observers:
                measured = observers.step(engine, epoch, cfg.epochs)
            else:
                count = _epochs_until_event(cfg, epoch, checkpoint_file)
                measured = advance(engine, epoch, count, cfg.epochs)
            if epoch < cfg.epochs:
                recorder.keep_up()
            recorder.record(epoch, measured)
            epoch += measured.loss.shape[1]
            if on_progress:
                on_progress(min(epoch, cfg.epochs))
            if recorder.all_stopped or recorder.all_diverged(epoch - 1):
                break
            if checkpoint_file and epoch <= cfg.epochs:
                checkpoint_file.maybe_write(epoch, engine, recorder)
    recorder.finish(engine)
    return recorder


def _epochs_until_event(cfg: TrainConfig, epoch: int, checkpoint_file: Checkpoint | None) -> int:
    """Epochs from this one on until an evaluation, a stored coefficient or a checkpoint, >= 1."""
    periods = (
        cfg.evaluate_every,
        cfg.coefficients_every,
        # By time: after each epoch there is a look at the clock.
        (checkpoint_file.every or 1) if checkpoint_file else 0,
    )
    return max(1, min([cfg.epochs - epoch, *(k - epoch % k for k in periods if k)]))


@contextmanager
def compute_threads(cfg: TrainConfig) -> Iterator[None]:
    """Use one thread for small runs: faster, and results do not depend on the number of threads.

    The native engine is bit-identical on any number of threads, as each trains whole runs, and so
    is the CPU's part of training on a GPU (labels, chi variates, linear probes). A threaded matrix
    product may split its sums, so from `THREADED_FLOP` per step on, results of different numbers
    of threads agree to rounding only.
    """
    threads = torch.get_num_threads()
    step = flop(cfg, cfg.engine) / max(1, cfg.epochs)
    if cfg.device == "cpu" and cfg.engine != "native" and step < THREADED_FLOP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


__all__ = ["Callback", "OwnData", "compute_threads", "prepared", "train", "train_batch"]

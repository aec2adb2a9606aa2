"""`train`: the loop around an engine, and what is measured along the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import as_data
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import ENGINES, Engine, EngineSpec, Measured, MultiEpochEngine, flop
from mmcl_fast.training.checkpoint import Checkpoint
from mmcl_fast.training.recorder import Recorder
from mmcl_fast.training.resolve import resolve
from mmcl_fast.training.run import Run


@dataclass(frozen=True)
class EpochInfo:
    """What a per-epoch callback is told.

    Attributes:
        epoch: Updates done, 0 .. epochs.
        epochs: Updates in all.
        loss: Full-batch loss, [R].
        signal: `max_r |<w_r, mu>|`, [R].
        noise: `max_{r,i} <w_r, xi_i>`, [R].
    """

    epoch: int
    epochs: int
    loss: torch.Tensor
    signal: torch.Tensor
    noise: torch.Tensor


Callback = Callable[[EpochInfo], None]
THREADED_FLOP = 1e9  # some milliseconds of one core


def train(
    cfg: TrainConfig,
    data: SignalNoiseData | Mapping[str, Any] | None = None,
    on_epoch: Callback | None = None,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
) -> Run:
    """Train one run by the paper's gradient descent (7), (10).

    Args:
        cfg: All settings.
        data: Data of your own: a `SignalNoiseData` or a mapping of its fields to arrays; default:
            `mmcl_fast.data.sample(cfg)`.
        on_epoch: Called before training and after each epoch.
        checkpoint: File to continue from if it exists and to write every `checkpoint_every` epochs.
        checkpoint_every: Epochs between checkpoints, >= 1.

    Returns: The run; if its loss stops being finite, with status "diverged" and the curves so far.
    Raises: ConfigError, DataError, EngineRefusedError: before any work starts. OutputError: the
        checkpoint cannot be used, or cannot be written.
    """
    resolved = resolve(cfg)
    mine = [as_data(resolved, data)]
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(Path(checkpoint), resolved, mine[0], checkpoint_every)
    recorder = train_batch([resolved], mine, on_epoch, saved)
    return recorder.runs(mine if data is not None else [None])[0]


def train_batch(
    configs: Sequence[TrainConfig],
    data: Sequence[SignalNoiseData],
    on_epoch: Callback | None = None,
    saved: Checkpoint | None = None,
    build: Callable[[EngineSpec], Engine] | None = None,
) -> Recorder:
    """Train runs of equal, settled settings side by side.

    Args:
        configs: Their settings.
        data: Their data.
        on_epoch: As for `train`.
        saved: A single run's checkpoint.
        build: Makes the engine; default: that of the settings.
    """
    cfg = configs[0]
    build = build or ENGINES[cfg.engine].build
    recorder = Recorder(configs, data)
    with compute_threads(cfg):
        engine = build(EngineSpec(configs, data, torch.device(cfg.device)))
        first = saved.resume(engine, recorder) if saved else 0
        epoch = first
        while epoch <= cfg.epochs:
            recorder.observe(epoch, engine)
            count = 1 if on_epoch else _epochs_until_event(cfg, epoch, saved)
            measured = _advance(engine, epoch, count, cfg.epochs)
            if epoch < cfg.epochs:
                recorder.keep_up()
            recorder.record(epoch, measured)
            epoch += measured.loss.shape[1]
            if on_epoch:
                last = (x[:, -1] for x in (measured.loss, measured.signal, measured.noise))
                on_epoch(EpochInfo(epoch - 1, cfg.epochs, *last))
            if recorder.all_diverged(epoch - 1):
                break
            if saved and epoch <= cfg.epochs:
                saved.maybe_write(epoch, engine, recorder)
    recorder.finish(engine)
    return recorder


def _advance(engine: Engine, epoch: int, count: int, last: int) -> Measured:
    """Measure an epoch and train on: up to `count` epochs at once where the engine can."""
    if epoch < last and isinstance(engine, MultiEpochEngine):
        return engine.train_epochs(epoch, count)
    signal, noise = engine.signal_and_noise()
    loss = engine.loss(epoch) if epoch == last else engine.train_epoch(epoch)
    return Measured(loss[:, None], signal[:, None], noise[:, None])


def _epochs_until_event(cfg: TrainConfig, epoch: int, saved: Checkpoint | None) -> int:
    """Epochs from this one on before something is to be observed or written, at least 1."""
    periods = (cfg.evaluate_every, cfg.coefficients_every, saved.every if saved else 0)
    return max(1, min([cfg.epochs - epoch, *(k - epoch % k for k in periods if k)]))


@contextmanager
def compute_threads(cfg: TrainConfig) -> Iterator[None]:
    """One thread for small runs: quicker there, and then the last bits are those of any machine.

    The native engine gives the same bits on any number: it trains one run on each. And so does what
    is left to the CPU of training on a GPU: labels, chi variates, heads.
    A threaded matrix product may split its sums, so from `THREADED_FLOP` a step on, results of
    different thread counts agree to rounding only.
    """
    threads = torch.get_num_threads()
    step = flop(cfg, cfg.engine) / max(1, cfg.epochs)
    if cfg.device == "cpu" and cfg.engine != "native" and step < THREADED_FLOP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


__all__ = ["Callback", "EpochInfo", "compute_threads", "train", "train_batch"]

"""`train` and `train_many`: the loop around an engine, and what is measured along the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from mmcl_fast.config import FIELD_NAMES, SEEDS, Device, TrainConfig
from mmcl_fast.data.signal_noise.sampling import as_data, sample_many
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import (
    ENGINES,
    Engine,
    Measured,
    Spec,
    StretchEngine,
    check_memory,
    drawing_device,
    flop,
    free_gpu_bytes,
    memory_bytes,
    resolve_engine,
)
from mmcl_fast.errors import ConfigError
from mmcl_fast.training.checkpoint import Checkpoint
from mmcl_fast.training.recorder import Recorder
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


def train_many(configs: Sequence[TrainConfig], on_epoch: Callback | None = None) -> list[Run]:
    """Train many runs, side by side where they differ in no more than the engine allows.

    That is seeds in every engine, and in `triton` and `native` also d, norms, noise levels, tau
    and eta. Results equal those of single runs to the last bit where `docs/architecture.md` says so
    of the engine.

    Args:
        configs: Settings of each run, in any order and mixture.
        on_epoch: Called before training and after each epoch of each batch.

    Returns: One run per config, in the order given.
    """
    runs: dict[int, Run] = {}
    begun: list[tuple[list[int], Recorder]] = []

    def finish(*, but: int) -> None:
        while len(begun) > but:
            batch, recorder = begun.pop(0)
            runs.update(zip(batch, recorder.runs([None] * len(batch)), strict=True))

    try:
        for batch, mine, needed in _batches(configs):
            # A GPU still trains one batch while the next is made, and trains that while runs of the
            # first are read out.
            under_way = 1 if _may_overlap(mine[0]) and _fits_beside(mine[0], needed) else 0
            finish(but=under_way)
            begun.append((batch, _begin(mine, on_epoch)))
            finish(but=under_way)
        finish(but=0)
    except BaseException:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # what a batch leaves to others must not be in use any more
        raise
    return [runs[k] for k in range(len(configs))]


def _batches(
    configs: Sequence[TrainConfig],
) -> Iterator[tuple[list[int], list[TrainConfig], int]]:
    """What to train side by side: which of the configs, these resolved, and bytes they need."""
    groups: dict[tuple[Any, ...], list[tuple[TrainConfig, list[int]]]] = {}
    for cfg, members in _kinds(configs):
        groups.setdefault(_shape(cfg), []).append((cfg, members))
    # All before the first batch takes memory.
    widths = [_width([cfg for cfg, _ in group]) for group in groups.values()]
    for group, width in zip(groups.values(), widths, strict=True):
        bytes_of_run = max(memory_bytes(cfg, cfg.engine) for cfg, _ in group)
        # Side by side, runs of equal d share launches.
        order = sorted(
            (cfg.columns, cfg.columns_b, k, kind)
            for kind, (cfg, members) in enumerate(group)
            for k in members
        )
        for first in range(0, len(order), width):
            part = [(k, group[kind][0]) for *_, k, kind in order[first : first + width]]
            mine = [_reseeded(cfg, configs[k]) for k, cfg in part]
            yield [k for k, _ in part], mine, len(part) * bytes_of_run


def _begin(configs: Sequence[TrainConfig], on_epoch: Callback | None) -> Recorder:
    """Draw and train a batch; on a GPU it is under way then, as one before it may be.

    So what comes before training has a stream of its own.
    """
    device = drawing_device(configs[0])
    with _beside(device):
        data = sample_many(configs, device)

    def build(spec: Spec) -> Engine:
        with _beside(device):
            return ENGINES[spec.cfg.engine].build(spec)

    return train_batch(configs, data, on_epoch, build=build)


def _may_overlap(cfg: TrainConfig) -> bool:
    """Whether a batch is begun while another trains: where the GPU does most for both."""
    return drawing_device(cfg) is not None


def _fits_beside(cfg: TrainConfig, needed: int) -> bool:
    """Whether a batch fits beside the one that trains: a run may need more than half a GPU."""
    # Twice, as in `_width`; what trains is not free any more.
    return cfg.device != "cuda" or 2 * needed <= free_gpu_bytes()


@contextmanager
def _beside(device: torch.device | None) -> Iterator[None]:
    """On a GPU, what is launched in here waits for nothing outside; what comes after, for it."""
    if device is None or device.type != "cuda":
        yield
        return
    stream = _preparing(torch.cuda.current_device())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


@cache
def _preparing(device: int) -> torch.cuda.Stream:
    """A stream whose work goes first: it is short, and the host waits for parts of it."""
    return torch.cuda.Stream(device, priority=-1)


_UNSEEDED = attrgetter(*(name for name in FIELD_NAMES if name not in SEEDS))
_SHAPES = {
    name: attrgetter(*(f for f in FIELD_NAMES if f not in SEEDS | kind.may_differ))
    for name, kind in ENGINES.items()
}


def _shape(cfg: TrainConfig) -> tuple[Any, ...]:
    """What resolved runs side by side must agree in."""
    found: tuple[Any, ...] = _SHAPES[cfg.engine](cfg)
    return found


def _width(kinds: Sequence[TrainConfig]) -> int:
    """Runs to train side by side, of kinds that differ in more than seeds: the largest bound it."""
    engine = ENGINES[kinds[0].engine]
    width = min(engine.max_runs(cfg) for cfg in kinds)
    if kinds[0].device != "cuda":
        return width
    # Twice, as what a batch is made from lives beside it for a while; so does the batch before it
    # where they overlap.
    times = 4 if _may_overlap(kinds[0]) else 2
    needed = times * max(memory_bytes(cfg, cfg.engine) for cfg in kinds)
    return max(1, min(width, free_gpu_bytes() // needed))


def _kinds(configs: Sequence[TrainConfig]) -> list[tuple[TrainConfig, list[int]]]:
    """Configs that differ in more than seeds, resolved, each with the places of those it is for."""
    places: dict[tuple[Any, ...], list[int]] = {}
    for k, cfg in enumerate(configs):
        places.setdefault(_UNSEEDED(cfg), []).append(k)
    return [(resolve(configs[members[0]]), members) for members in places.values()]


def _reseeded(resolved: TrainConfig, cfg: TrainConfig) -> TrainConfig:
    return resolved.replace(seed=cfg.seed, data_seed=cfg.data_seed, init_seed=cfg.init_seed)


def resolve(cfg: TrainConfig) -> TrainConfig:
    """The config with `auto` and defaults replaced by what will be used; it fits into memory."""
    cfg = settle(cfg)
    check_memory(cfg, cfg.engine)
    return cfg


def settle(cfg: TrainConfig) -> TrainConfig:
    """The same without a look at memory."""
    cfg = cfg.replace(device=usable_device(cfg.device), tau=cfg.tau_value)
    engine = resolve_engine(cfg)
    return cfg if engine == cfg.engine else cfg.replace(engine=engine)


def usable_device(device: Device) -> Device:
    """The device itself, or where `auto` trains here.

    Raises: ConfigError: there is no such device.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ConfigError("device: expected cpu (no CUDA device is usable here), got cuda")
    if device == "auto":
        return "cuda" if there else "cpu"
    return device


def train_batch(
    configs: Sequence[TrainConfig],
    data: Sequence[SignalNoiseData],
    on_epoch: Callback | None = None,
    saved: Checkpoint | None = None,
    build: Callable[[Spec], Engine] | None = None,
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
        engine = build(Spec(configs, data, torch.device(cfg.device)))
        first = saved.resume(engine, recorder) if saved else 0
        epoch = first
        while epoch <= cfg.epochs:
            recorder.observe(epoch, engine)
            count = 1 if on_epoch else _quiet_epochs(cfg, epoch, saved)
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
    if epoch < last and isinstance(engine, StretchEngine):
        return engine.train_epochs(epoch, count)
    signal, noise = engine.signal_and_noise()
    loss = engine.loss(epoch) if epoch == last else engine.train_epoch(epoch)
    return Measured(loss[:, None], signal[:, None], noise[:, None])


def _quiet_epochs(cfg: TrainConfig, epoch: int, saved: Checkpoint | None) -> int:
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


__all__ = ["EpochInfo", "resolve", "settle", "train", "train_batch", "train_many"]

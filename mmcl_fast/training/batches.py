"""`train_many`: how runs are grouped into batches, and how consecutive batches overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any

import torch

from mmcl_fast.config import FIELD_NAMES, SEEDS, TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample_many
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import (
    ENGINES,
    Engine,
    EngineSpec,
    drawing_device,
    free_gpu_bytes,
    memory_bytes,
)
from mmcl_fast.errors import ConfigError, DataError
from mmcl_fast.progress import Progress, optional_progress
from mmcl_fast.training.loop import OwnData, prepared, train_batch
from mmcl_fast.training.observers import Callback, Metric, check_callback, check_metrics
from mmcl_fast.training.recorder import Recorder
from mmcl_fast.training.resolve import resolve
from mmcl_fast.training.run import Run


def train_many(
    configs: Iterable[TrainConfig],
    on_epoch: Callback | None = None,
    *,
    data: OwnData | Sequence[OwnData] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    progress: bool = False,
) -> list[Run]:
    """Train many runs, in batches of runs that differ only in what the engine allows.

    Every engine allows different seeds; `triton` and `native` also d, norms, noise levels, tau and
    eta. Results are bit-identical to separate runs where `docs/architecture.md` says so of the
    engine.

    Args:
        configs: Settings of each run; any may differ, in any order.
        on_epoch: Called with an `EpochInfo` of each batch before training and after each epoch. If
            it returns "stop" all runs of the batch end there; a bool tensor [R] ends those that it
            marks. They keep their curves, and the other batches are trained.
        data: User-supplied data as for `train`: one for all configs, or a list of one for each.
        metrics: As for `train`.
        progress: Show the epochs done, summed over runs, as `train` does.

    Returns: One run per config, in the order given.
    Raises: ConfigError, DataError, EngineRefusedError: before any work starts.
    """
    check_callback(on_epoch)
    chosen_metrics = check_metrics(metrics)
    configs = _configs(configs)
    own = _own_data(configs, data)
    if own is not None:
        configs = [cfg for cfg, _ in own]
    total = sum(cfg.epochs for cfg in configs)
    with optional_progress(total, "run-epochs", shown=progress) as display:
        observed = Observed(on_epoch, chosen_metrics, _told(display))
        return _train_all(configs, own, observed)


@dataclass(frozen=True)
class Observed:
    """Who is told of a training: a callback, metrics, and a display of run-epochs."""

    on_epoch: Callback | None
    metrics: Mapping[str, Metric]
    on_progress: Callable[[int], None] | None


def _told(display: Progress | None) -> Callable[[int], None] | None:
    """A function of run-epochs that shows their sum, where there is a display."""
    if display is None:
        return None
    done = 0

    def tell(run_epochs: int) -> None:
        nonlocal done
        done += run_epochs
        display.advance("training", done)

    return tell


def _train_all(
    configs: Sequence[TrainConfig],
    own: list[tuple[TrainConfig, SignalNoiseData]] | None,
    observed: Observed,
) -> list[Run]:
    """Train all batches, each beside the end of the one before."""
    runs: dict[int, Run] = {}
    started: list[tuple[list[int], Recorder]] = []

    def finish(*, leaving: int) -> None:
        while len(started) > leaving:
            batch, recorder = started.pop(0)
            held = [None if own is None else own[k][1] for k in batch]
            runs.update(zip(batch, recorder.runs(held), strict=True))

    try:
        for batch, resolved, batch_bytes in _batches(configs, is_own=own is not None):
            # The GPU still trains a batch while the next is prepared, and trains the next while the
            # results of the first are read.
            under_way = (
                1 if _may_overlap(resolved[0]) and _fits_beside(resolved[0], batch_bytes) else 0
            )
            finish(leaving=under_way)
            held = None if own is None else [own[k][1] for k in batch]
            started.append((batch, _start(resolved, held, observed)))
            finish(leaving=under_way)
        finish(leaving=0)
    except BaseException:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # memory that a batch frees must not be in use
        raise
    return [runs[k] for k in range(len(configs))]


def _batches(
    configs: Sequence[TrainConfig], *, is_own: bool
) -> Iterator[tuple[list[int], list[TrainConfig], int]]:
    """For each batch the indices of its configs, these resolved, and its memory in bytes.

    Args:
        configs: Settings of all runs.
        is_own: Their data are not drawn.
    """
    groups: dict[tuple[Any, ...], list[tuple[TrainConfig, list[int]]]] = {}
    for cfg, members in _kinds(configs):
        groups.setdefault(_shape(cfg), []).append((cfg, members))
    # Computed before the first batch allocates memory.
    widths = [_width([cfg for cfg, _ in group]) for group in groups.values()]
    for group, width in zip(groups.values(), widths, strict=True):
        if is_own and group[0][0].is_variant and group[0][0].data == "orthogonal":
            # Vectors that are not orthogonal have other operations: a run's bits would depend on
            # the vectors of the others.
            width = 1
        bytes_of_run = max(memory_bytes(cfg, cfg.engine) for cfg, _ in group)
        # Consecutive runs of equal d share launches.
        order = sorted(
            (*cfg.widths.values(), k, kind)
            for kind, (cfg, members) in enumerate(group)
            for k in members
        )
        for first in range(0, len(order), width):
            part = [(k, group[kind][0]) for *_, k, kind in order[first : first + width]]
            resolved = [_reseeded(cfg, configs[k]) for k, cfg in part]
            yield [k for k, _ in part], resolved, len(part) * bytes_of_run


def _configs(configs: Iterable[TrainConfig]) -> list[TrainConfig]:
    """The configs of any iterable, each checked to be one."""
    if not isinstance(configs, Iterable):
        raise ConfigError(
            f"configs: expected TrainConfigs in a list or another iterable, got {_kind(configs)}"
        )
    given = list(configs)
    for k, cfg in enumerate(given):
        if not isinstance(cfg, TrainConfig):
            raise ConfigError(f"configs: expected TrainConfigs, got {_kind(cfg)} at index {k}")
    return given


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"one {name}" if isinstance(value, TrainConfig) else f"{name} {value!r}"


def _own_data(
    configs: Sequence[TrainConfig], data: OwnData | Sequence[OwnData] | None
) -> list[tuple[TrainConfig, SignalNoiseData]] | None:
    """Settings and data of each run where data are given."""
    if data is None:
        return None
    if isinstance(data, Sequence):
        if len(data) != len(configs):
            raise DataError(
                f"data: expected one, or one for each of {len(configs)} configs, got {len(data)}"
            )
        return [prepared(cfg, x) for cfg, x in zip(configs, data, strict=True)]
    return [prepared(cfg, data) for cfg in configs]


def _start(
    configs: Sequence[TrainConfig],
    held: Sequence[SignalNoiseData] | None,
    observed: Observed,
) -> Recorder:
    """Draw and train a batch. On a GPU it still runs at the return, as the batch before it may.

    Therefore drawing and engine construction use a side stream.
    """
    device = drawing_device(configs[0])
    with _on_side_stream(device):
        data = sample_many(configs, device) if held is None else held

    def build(spec: EngineSpec) -> Engine:
        with _on_side_stream(device):
            return ENGINES[spec.cfg.engine].build(spec)

    before = 0

    def tell(epochs: int) -> None:
        nonlocal before
        assert observed.on_progress is not None
        observed.on_progress((epochs - before) * len(configs))
        before = epochs

    return train_batch(
        configs,
        data,
        observed.on_epoch,
        build=build,
        metrics=observed.metrics,
        on_progress=tell if observed.on_progress else None,
    )


def _may_overlap(cfg: TrainConfig) -> bool:
    """Whether a batch starts while another trains: if its data are drawn on the GPU."""
    return drawing_device(cfg) is not None


def _fits_beside(cfg: TrainConfig, batch_bytes: int) -> bool:
    """Whether a batch fits into the memory left by the one in training."""
    # Twice, as in `_width`; memory of the batch in training is not free.
    return cfg.device != "cuda" or 2 * batch_bytes <= free_gpu_bytes()


@contextmanager
def _on_side_stream(device: torch.device | None) -> Iterator[None]:
    """Runs the block on a side CUDA stream; the current stream waits for it on exit."""
    if device is None or device.type != "cuda":
        yield
        return
    stream = _side_stream(torch.cuda.current_device())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """A stream of high priority: its work is short, and the host waits for parts of it."""
    return torch.cuda.Stream(device, priority=-1)


_UNSEEDED = attrgetter(*(name for name in FIELD_NAMES if name not in SEEDS))
_SHAPES = {
    name: attrgetter(*(f for f in FIELD_NAMES if f not in SEEDS | kind.may_differ))
    for name, kind in ENGINES.items()
}


def _shape(cfg: TrainConfig) -> tuple[Any, ...]:
    """Settings that must be equal within a batch, of a resolved config."""
    shape: tuple[Any, ...] = _SHAPES[cfg.engine](cfg)
    return shape


def _width(kinds: Sequence[TrainConfig]) -> int:
    """Largest batch of some configs; the one of most memory limits it."""
    engine = ENGINES[kinds[0].engine]
    width = min(engine.max_runs(cfg) for cfg in kinds)
    if kinds[0].device != "cuda":
        return width
    # Twice, as the data exist beside the engine for a while; twice that if batches overlap.
    times = 4 if _may_overlap(kinds[0]) else 2
    batch_bytes = times * max(memory_bytes(cfg, cfg.engine) for cfg in kinds)
    return max(1, min(width, free_gpu_bytes() // batch_bytes))


def _kinds(configs: Sequence[TrainConfig]) -> list[tuple[TrainConfig, list[int]]]:
    """Configs that differ in more than seeds, resolved, each with the indices of its runs."""
    members_of: dict[tuple[Any, ...], list[int]] = {}
    for k, cfg in enumerate(configs):
        members_of.setdefault(_UNSEEDED(cfg), []).append(k)
    return [(resolve(configs[members[0]]), members) for members in members_of.values()]


def _reseeded(resolved: TrainConfig, cfg: TrainConfig) -> TrainConfig:
    return resolved.replace(seed=cfg.seed, data_seed=cfg.data_seed, init_seed=cfg.init_seed)


__all__ = ["train_many"]

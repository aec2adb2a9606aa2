"""`train_many`: which runs train side by side, and how one batch overlaps with the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import attrgetter
from typing import Any

import torch

from mmcl_fast.config import FIELD_NAMES, SEEDS, TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample_many
from mmcl_fast.engines import (
    ENGINES,
    Engine,
    EngineSpec,
    drawing_device,
    free_gpu_bytes,
    memory_bytes,
)
from mmcl_fast.training.loop import Callback, train_batch
from mmcl_fast.training.recorder import Recorder
from mmcl_fast.training.resolve import resolve
from mmcl_fast.training.run import Run


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

    def build(spec: EngineSpec) -> Engine:
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


__all__ = ["train_many"]

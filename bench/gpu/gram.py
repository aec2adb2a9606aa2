"""A step of `bench.gpu`: runs too large for one program, in coefficient space, by the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData

from ..peers import training
from .timing import CUDA, DRY, SPARE_S, Report, Row
from .trajectory import PAPER, engine_of, samples

SIZES = ((12, 5),) if DRY else ((512, 64), (1024, 128), (2048, 256))  # n, m
SIDE_BY_SIDE = 2 if DRY else 8  # of the smallest
EPOCHS = 5 if DRY else 20
SCAN_S = 4.0  # to load JAX, to compile and to time; else the step would be ended in between
CHECKED = 4  # the first is launched, the second is captured
REPLAYED, LAUNCHED, SCAN = "gram, replayed", "gram, eager launches", "JAX scan"
Make = Callable[[TrainConfig, Sequence[SignalNoiseData]], Callable[[], object]]


def gram(report: Report) -> None:
    """Milliseconds an epoch: a replayed graph, the same launched one by one, and JAX."""
    held = list(cases())
    for cfg, data in held:
        _attempt(report, REPLAYED, cfg, data, lambda c=cfg, x=data: _replayed(report, c, x))  # type: ignore[misc]
        _attempt(report, LAUNCHED, cfg, data, lambda c=cfg, x=data: _timed(report, launched, c, x))  # type: ignore[misc]
    for cfg, data in held:  # last, for JAX compiles each size
        _attempt(report, SCAN, cfg, data, lambda c=cfg, x=data: _scan(report, c, x), SCAN_S)  # type: ignore[misc]


def cases() -> Iterator[tuple[TrainConfig, list[SignalNoiseData]]]:
    """Settings and data of runs side by side."""
    for k, (n, m) in enumerate(SIZES):
        cfg = PAPER.replace(n=n, m=m, n_test=1, epochs=EPOCHS)
        most = samples(cfg, SIDE_BY_SIDE if k == 0 else 1)
        yield from ((cfg, most[:runs]) for runs in sorted({1, len(most)}))


def agree(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> bool:
    """Whether a replay gives the bits of launches, curves and state."""
    ours, plain = _ours(cfg, data), _plain(cfg, data)
    measured = ours.train_epochs(0, CHECKED)
    for epoch in range(CHECKED):
        signal, noise = plain.signal_and_noise()
        expected = {"loss": plain.train_epoch(epoch), "signal": signal, "noise": noise}
        if not all(torch.equal(getattr(measured, k)[:, epoch], x) for k, x in expected.items()):
            return False
    state = plain.state()
    return all(torch.equal(x, state[name]) for name, x in ours.state().items())


def replayed(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], object]:
    """Epochs by a graph, captured."""
    engine = _ours(cfg, data)
    engine.train_epochs(0, 2)
    return lambda: engine.train_epochs(0, cfg.epochs)


def launched(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], object]:
    """The same epochs as `training` does those of an engine without stretches."""
    engine = _plain(cfg, data)
    return lambda: [(engine.signal_and_noise(), engine.train_epoch(t)) for t in range(cfg.epochs)]


def scan(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
    """Losses of the same runs by JAX in float32, which is not its default on such a GPU."""
    jax = import_module("jax")
    losses = (
        training.jax_losses(cfg, data[0]) if len(data) == 1 else training.jax_vmap_losses(cfg, data)
    )

    def call() -> Tensor:
        with jax.default_matmul_precision("highest"):  # else TF32
            return losses()

    return call


def _ours(cfg: TrainConfig, data: Sequence[SignalNoiseData]):  # type: ignore[no-untyped-def]
    if not DRY:
        return engine_of("gram", cfg, data, CUDA.type)
    from mmcl_fast.engines import EngineSpec
    from mmcl_fast.engines.gram_cuda_graph import ReplayedGramEngine

    # On a CPU a replay is the step itself.
    return ReplayedGramEngine(EngineSpec([cfg] * len(data), data, CUDA), lambda step: step)


def _plain(cfg: TrainConfig, data: Sequence[SignalNoiseData]):  # type: ignore[no-untyped-def]
    from mmcl_fast.engines import EngineSpec, GramEngine

    return GramEngine(EngineSpec([cfg] * len(data), data, CUDA))


def _replayed(report: Report, cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Row:
    if not agree(cfg, data):
        return {"ok": False, "why": "expected the bits of epochs launched one by one, got others"}
    return {**_timed(report, replayed, cfg, data), "ok": True}


def _scan(report: Report, cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Row:
    backend = import_module("jax").default_backend()
    if backend != "gpu":
        raise RuntimeError(f"JAX: expected a GPU backend, got {backend}")
    timed = _timed(report, scan, cfg, data)
    for name in ("peak_mib", "enqueue_ms", "host_bound"):
        timed.pop(name, None)  # the call waits, and torch does not see the memory
    return timed


def _timed(report: Report, make: Make, cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Row:
    timed = report.timed(make(cfg, data), seconds=0.15, most=20)
    return {**timed, "epochs": cfg.epochs, "ms_per_epoch": timed["ms"]["p50"] / cfg.epochs}


def _attempt(
    report: Report,
    variant: str,
    cfg: TrainConfig,
    data: Sequence[SignalNoiseData],
    call: Callable[[], Row],
    spare: float = SPARE_S,
) -> None:
    settings = {"modality": cfg.modality, "n": cfg.n, "m": cfg.m, "runs": len(data)}
    report.attempt("gram", variant, settings, call, spare=spare)


__all__ = ["agree", "cases", "gram", "launched", "replayed", "scan"]

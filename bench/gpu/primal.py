"""Steps of `bench.gpu` on the weights at scale: gates, and timings beside autograd."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData

from ..cpu.primal import necessary_flop
from ..peers.training import EagerLoss, eager_loss, eager_losses
from .timing import CUDA, DRY, Report, Row, compiled, distance, product_tflops
from .trajectory import engine_of, moved

# A small step, so that activations keep the law of the initial weights while steps are repeated:
# on zeros a product is quicker.
SIZE = TrainConfig(n=65536, d=4096, m=2048, eta=1e-3, epochs=1, engine="primal", evaluate_every=0)
PEERS_N = 32 if DRY else 16384  # the peers hold score matrices
# The losses of its steps differ, and so do its softmaxes.
GATE = SIZE.replace(n=4096, d=1024, m=256, eta=0.1, sigma_0=0.01, epochs=3)
if DRY:
    SIZE, GATE = SIZE.replace(n=64, d=16, m=8), GATE.replace(n=256, d=64, m=32)
LIMITS = {"bf16": (2**-7, 2**-4), "ieee": (1e-5, 1e-4)}  # of losses by the first, of the update
MODALITIES = ("single", "multi")
OURS = "primal, {}".format
EAGER, COMPILED = "eager, tuned", "eager, tuned, compiled"


def trained(cfg: TrainConfig, data: SignalNoiseData, device: str) -> tuple[Tensor, list[Tensor]]:
    """Losses of the steps, and how far each modality's weights went, in float64."""
    engine = engine_of("primal", cfg, [data], device)
    losses = torch.stack([engine.train_epoch(t)[0] for t in range(cfg.epochs)])
    starts = [w.to(device).double() for w in (data.weights, data.weights_b) if w is not None]
    ends = [w[0].double() for w in engine.weights()]
    return losses.double(), [b - a for a, b in zip(starts, ends, strict=True)]


def gate_primal(report: Report, size: TrainConfig = GATE, device: str = CUDA.type) -> None:
    """Losses and weights of three steps against the engine in float64."""
    for modality in MODALITIES:
        for q in (1, 2):
            cfg = size.replace(modality=modality, q=q)
            data = sample(cfg)
            fields = vars(data).items()
            wide = replace(data, **{k: v.double() for k, v in fields if v is not None})
            truth, right = trained(cfg.replace(dtype="float64"), wide, device)
            for precision, limits in LIMITS.items():
                losses, update = trained(cfg.replace(precision=precision), data, device)
                error = float((losses - truth).abs().max() / truth[0])
                far = max(distance(a, b) for a, b in zip(update, right, strict=True))
                settings = {"modality": modality, "precision": precision, "q": q}
                settings |= {"n": cfg.n, "d": cfg.d, "m": cfg.m}
                fine = error <= limits[0] and far <= limits[1]
                report.add("gate_primal", OURS(precision), settings, error=error, update=far,
                           first_loss=float(truth[0]), ok=fine)  # fmt: skip


def primal(report: Report) -> None:
    """One step of the engine, and where the score matrices fit, of autograd."""
    rate: Row = {}
    if not report.once:
        rate = report.attempt("primal_product", "product, bfloat16", {"size": 8192},
                              lambda: product_tflops(report)) or {}  # fmt: skip
    tflops = rate.get("tflops")
    for modality in report.assigned(MODALITIES):
        cfg = SIZE.replace(modality=modality)
        _attempt(report, cfg, OURS("bf16"), tflops, lambda c=cfg: _engine(c, sample(c), "bf16"))  # type: ignore[misc]
    for modality in report.assigned(MODALITIES):
        cfg = SIZE.replace(modality=modality, n=PEERS_N)
        data = sample(cfg)
        for name, make in variants(cfg, data).items():
            if report.once and name.startswith(f"{EAGER},") and COMPILED not in name:
                continue  # nothing to compile
            _attempt(report, cfg, name, tflops, make)


def variants(
    cfg: TrainConfig, data: SignalNoiseData
) -> dict[str, Callable[[], Callable[[], Tensor]]]:
    """What is timed at the peers' size, by name: each makes its step, which returns the loss."""
    variants: dict[str, Callable[[], Callable[[], Tensor]]] = {}
    for precision in LIMITS:
        variants[OURS(precision)] = partial(_engine, cfg, data, precision)
    for name, compiles in ((EAGER, False), (COMPILED, True)):
        for low in (True, False):
            kind = "bf16 autocast" if low else "float32"
            variants[f"{name}, {kind}"] = partial(_autograd, cfg, data, compiles=compiles, low=low)
    return variants


def _engine(cfg: TrainConfig, data: SignalNoiseData, precision: str) -> Callable[[], Tensor]:
    engine = engine_of("primal", cfg.replace(precision=precision), [data], CUDA.type)
    return lambda: engine.train_epoch(0)


def _autograd(
    cfg: TrainConfig, data: SignalNoiseData, *, compiles: bool, low: bool
) -> Callable[[], Tensor]:
    torch.set_float32_matmul_precision("highest")  # no TF32
    here = moved(data)
    if low:  # noise patches already in bfloat16, which autocast would convert in every step
        names = ("noise", "augmented", "noise_b")
        rows = {k: v.bfloat16() for k in names if (v := getattr(here, k)) is not None}
        here = replace(here, **rows)
    loss_of = autograd_loss(cfg, here, low=low)
    if compiles:
        loss_of = compiled(loss_of)
    return lambda: eager_losses(cfg, here, loss_of)


def autograd_loss(cfg: TrainConfig, data: SignalNoiseData, *, low: bool) -> EagerLoss:
    """The tuned eager loss, under autocast if `low`."""
    device = data.labels.device.type
    # Its rows are the patches with the signal as one more, of one dtype.
    signal = {"mu": data.mu, "mu_b": data.mu_b} if low else {}
    fields = {k: v.bfloat16() for k, v in signal.items() if v is not None}
    loss_of = eager_loss(cfg, replace(data, **fields))

    def loss(weights: list[Tensor]) -> Tensor:
        with torch.autocast(device, torch.bfloat16) if low else nullcontext():
            return loss_of(weights)

    return loss


def _attempt(
    report: Report,
    cfg: TrainConfig,
    name: str,
    tflops: float | None,
    make: Callable[[], Callable[[], Tensor]],
) -> None:
    def measured() -> Row:
        step = make()
        first = float(step())
        timed = report.timed(step, seconds=0.8, most=12)
        flop = necessary_flop(cfg)
        rate = 1e-9 * flop / timed["ms"]["p50"]
        row = {**timed, "first_loss": first, "flop": flop, "tflops": rate}
        return row | ({"of_product_rate": rate / tflops} if tflops else {})

    settings = {"modality": cfg.modality, "n": cfg.n, "d": cfg.d, "m": cfg.m}
    report.attempt("primal", name, settings, measured)


__all__ = ["autograd_loss", "gate_primal", "primal", "trained", "variants"]

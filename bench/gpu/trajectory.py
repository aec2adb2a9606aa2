"""Steps of `bench.gpu` on whole runs: correctness gate, and timings against peers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.training import train_many

from ..peers import training
from .timing import CUDA, DRY, Report, Row

PAPER = TrainConfig(data="reduced", evaluate_every=0)  # the same law at d = 2000, fewer numbers
# 8, 2 and 32 for each of 132 multiprocessors.
RUNS, PEER_RUNS, WHOLE_RUNS = (2, 2, 2) if DRY else (1056, 256, 4224)
if DRY:
    PAPER = PAPER.replace(n=8, m=3, d=20, epochs=2, n_test=1)
PRECISIONS = ("ieee", "tf32x3", "tf32")


def samples(cfg: TrainConfig, count: int) -> list[SignalNoiseData]:
    """Data of runs of different seeds."""
    return [sample(cfg.replace(seed=seed)) for seed in range(count)]


def engine_of(name: str, cfg: TrainConfig, data: Sequence[SignalNoiseData], device: str) -> Any:
    """An engine on a device."""
    from mmcl_fast.engines import ENGINES, EngineSpec

    return ENGINES[name].build(EngineSpec([cfg] * len(data), data, torch.device(device)))


def gate_trajectory(report: Report) -> None:
    """Losses of 200 epochs against the gram engine in float64, for each precision."""
    for modality in ("single", "multi"):
        cfg = PAPER.replace(modality=modality)
        data = samples(cfg, 4)
        wide = [
            SignalNoiseData(**{k: None if v is None else v.double() for k, v in vars(x).items()})
            for x in data
        ]
        exact = engine_of("gram", cfg.replace(dtype="float64"), wide, "cpu")
        truth = torch.stack([exact.train_epoch(t) for t in range(cfg.epochs)], dim=1)
        for precision, limit in zip(PRECISIONS, (1e-4, 1e-3, None), strict=True):
            engine = engine_of("triton", cfg.replace(precision=precision), data, CUDA.type)
            loss = engine.train_epochs(0, cfg.epochs).loss.cpu().double()
            again = engine_of("triton", cfg.replace(precision=precision), data[1:2], CUDA.type)
            same = torch.equal(again.train_epochs(0, cfg.epochs).loss[0].cpu().double(), loss[1])
            far = float((loss - truth).abs().max() / truth[:, 0].min())
            # tf32's error is reported, not judged: its users ask for it by name.
            right = far <= limit if limit is not None else bool(loss.isfinite().all())
            settings = {"modality": modality, "precision": precision, "runs": len(data)}
            report.add("gate_trajectory", f"triton, {precision}", settings, error=far,
                       alone_as_batched=same, ok=bool(right and same))  # fmt: skip


def trajectory(report: Report) -> None:
    """Runs a second of the paper's size, ours by precision, from end to end, and of peers."""
    both = {m: PAPER.replace(modality=m) for m in report.assigned(("single", "multi"))}
    data = {m: samples(cfg, RUNS) for m, cfg in both.items()}

    def attempt(variant: str, modality: str, runs: int, call: Callable[[], Row]) -> None:
        report.attempt("trajectory", variant, {"modality": modality, "runs": runs}, call)

    for precision in PRECISIONS:
        for modality, cfg in both.items():
            attempt(f"triton, {precision}", modality, RUNS,
                    lambda p=precision, c=cfg, x=data[modality]: launches(report, c, x, p))  # type: ignore[misc]  # fmt: skip
    for modality, cfg in both.items():
        attempt("train_many", modality, WHOLE_RUNS, lambda c=cfg: _whole(report, c))  # type: ignore[misc]
    if report.once:  # peers compile nothing, or as JAX choose tiles by timing on an idle device
        return
    for name, make, runs in (
        ("JAX vmap", _jax, PEER_RUNS),
        ("eager", _eager, 1),
        ("vmapped torch", _vmapped, PEER_RUNS),
        ("JAX vmap, tf32", _jax_tf32, PEER_RUNS),
    ):
        for modality, cfg in both.items():
            attempt(name, modality, runs,
                    lambda f=make, c=cfg, x=data[modality][:runs]: _peer(report, f, c, x))  # type: ignore[misc]  # fmt: skip


def launches(
    report: Report, cfg: TrainConfig, data: Sequence[SignalNoiseData], precision: str
) -> Row:
    """Runs a second of the engine, inner products given."""
    engine = engine_of("triton", cfg.replace(precision=precision), data, CUDA.type)
    start = {name: x.clone() for name, x in engine.state().items()}

    def train() -> Tensor:
        engine.load_state(start)
        losses: Tensor = engine.train_epochs(0, cfg.epochs).loss
        return losses

    return _rate(report, train, len(data), cfg.epochs)


def _rate(report: Report, train: Callable[[], Tensor], runs: int, epochs: int) -> Row:
    timed = report.timed(train, seconds=1.0, most=8)
    return {**timed, "epochs": epochs, "runs_per_s": 1e3 * runs / timed["ms"]["p50"]}


def _peer(
    report: Report,
    make: Callable[[TrainConfig, Sequence[SignalNoiseData]], Callable[[], Tensor]],
    cfg: TrainConfig,
    data: Sequence[SignalNoiseData],
) -> Row:
    train = make(cfg, data)
    timed = _rate(report, train, len(data), cfg.epochs)
    if make in (_jax, _jax_tf32):  # the call waits, and torch does not see the memory
        for name in ("peak_mib", "enqueue_ms", "host_bound"):
            timed.pop(name, None)
    return timed


def _whole(report: Report, cfg: TrainConfig) -> Row:
    """From the configs to the curves, data drawn and moved: seconds of wall time."""
    configs = [cfg.replace(device=CUDA.type, seed=seed) for seed in range(WHOLE_RUNS)]
    train_many(configs[: 8 if report.once else RUNS])  # loads and compiles
    if report.once:
        return {}
    begin = time.perf_counter()
    runs = train_many(configs)
    seconds = time.perf_counter() - begin
    return {
        "engine": runs[0].config.engine,
        "seconds": round(seconds, 3),
        "runs_per_s": len(runs) / seconds,
        "epochs": cfg.epochs,
        "repeats": 1,
    }


def moved(data: SignalNoiseData) -> SignalNoiseData:
    """The same on the device."""
    return SignalNoiseData(**{k: None if v is None else v.to(CUDA) for k, v in vars(data).items()})


def _eager(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
    run_data = moved(data[0])
    return lambda: training.eager_losses(cfg, run_data)


def _vmapped(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
    fields = _stacked(cfg, data)
    start = [fields.pop(k) for k in ("weights", "weights_b") if k in fields]
    of_runs = torch.func.vmap(torch.func.grad_and_value(_loss(cfg)))

    def losses() -> Tensor:
        weights, losses = start, []
        for _ in range(cfg.epochs):
            gradients, values = of_runs(weights, fields)
            weights = [w - cfg.eta * g for w, g in zip(weights, gradients, strict=True)]
            losses.append(values)
        return torch.stack(losses, dim=1)

    return losses


def _stacked(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> dict[str, Tensor]:
    names = ["labels", "noise", "mu", "weights"]
    names += ["noise_b", "mu_b", "weights_b"] if cfg.is_multi else ["augmented"]
    return {k: torch.stack([getattr(x, k) for x in data]).to(CUDA) for k in names}


def _loss(cfg: TrainConfig) -> Callable[[list[Tensor], dict[str, Tensor]], Tensor]:
    """The loss of one run, as `peers.eager_losses` has it, of weights and data."""
    scale = 1.0 / (cfg.m * cfg.tau_value)

    def encode(w: Tensor, noise: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        a = w @ mu
        return torch.relu(noise @ w.T), torch.relu(torch.stack([a, -a]))

    def direction(query: Any, key: Any, positive: Any, labels: Tensor) -> Tensor:
        (h, s), (keys, sign), (match, own) = query, key, positive
        pool = scale * (h @ keys.detach().T)
        pool = pool.masked_fill(labels[:, None] == labels, -torch.inf).logsumexp(1)
        by_label = (s * (sign.detach().flip(0) - own.detach())).sum(1)
        gap = torch.where(labels > 0, by_label[0], by_label[1]) - (h * match.detach()).sum(1)
        return torch.nn.functional.softplus(pool + scale * gap).mean()

    def loss(weights: list[Tensor], x: dict[str, Tensor]) -> Tensor:
        a = encode(weights[0], x["noise"], x["mu"])
        if cfg.is_multi:
            b = encode(weights[1], x["noise_b"], x["mu_b"])
            return direction(a, b, b, x["labels"]) + direction(b, a, a, x["labels"])
        view = torch.relu(x["augmented"] @ weights[0].detach().T)
        return direction(a, a, (view, a[1]), x["labels"])

    return loss


def _jax(
    cfg: TrainConfig, data: Sequence[SignalNoiseData], precision: str = "highest"
) -> Callable[[], Tensor]:
    """In float32: JAX's own default would be TF32 here."""
    jax, jnp = import_module("jax"), import_module("jax.numpy")
    if jax.default_backend() != "gpu":
        raise RuntimeError(f"JAX: expected a GPU backend, got {jax.default_backend()}")
    fields = {k: jnp.asarray(v.cpu().numpy()) for k, v in _stacked(cfg, data).items()}
    start = [fields[k] for k in ("weights", "weights_b") if k in fields]
    run = jax.jit(jax.vmap(training.jax_scan(cfg)))

    def losses() -> Tensor:
        with jax.default_matmul_precision(precision):
            jax.block_until_ready(run(start, fields))
        return torch.empty(0)

    return losses


def _jax_tf32(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
    return _jax(cfg, data, "tensorfloat32")


__all__ = ["PAPER", "engine_of", "gate_trajectory", "launches", "moved", "samples", "trajectory"]

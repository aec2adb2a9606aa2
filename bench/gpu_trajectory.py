"""Steps of `bench/gpu.py` on whole runs: gate, timings beside others' ways, other tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.synthetic import SignalNoiseData, sample

from . import peers

PAPER = TrainConfig(data="reduced", evaluate_every=0)  # the same law at d = 2000, fewer numbers
RUNS, PEER_RUNS, TUNED_RUNS = 2048, 256, 528
PRECISIONS = ("ieee", "tf32x3", "tf32")
Row = dict[str, Any]


class Report(Protocol):
    """See `gpu_steps.Report`."""

    def add(self, op: str, **row: object) -> None:
        """Append a row."""

    def attempt(self, op: str, settings: Row, call: Callable[[], Row]) -> Row | None:
        """Append what is measured, or why not."""


def samples(cfg: TrainConfig, count: int) -> list[SignalNoiseData]:
    """Data of runs of different seeds."""
    return [sample(cfg.replace(seed=seed)) for seed in range(count)]


def engine_of(name: str, cfg: TrainConfig, data: Sequence[SignalNoiseData], device: str) -> Any:
    """An engine on a device."""
    from mmcl_fast.engines import ENGINES, Spec

    return ENGINES[name].build(Spec([cfg] * len(data), data, torch.device(device)))


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
            engine = engine_of("triton", cfg.replace(precision=precision), data, "cuda")
            loss = engine.train_epochs(0, cfg.epochs).loss.cpu().double()
            again = engine_of("triton", cfg.replace(precision=precision), data[1:2], "cuda")
            same = torch.equal(again.train_epochs(0, cfg.epochs).loss[0].cpu().double(), loss[1])
            far = float((loss - truth).abs().max() / truth[:, 0].min())
            # tf32's error is reported, not judged: its users ask for it by name.
            right = far <= limit if limit is not None else bool(loss.isfinite().all())
            report.add("gate_trajectory", modality=modality, precision=precision, error=far,
                       alone_as_batched=same, ok=bool(right and same))  # fmt: skip


def trajectory(report: Report) -> None:
    """Runs a second of the paper's size, inner products given; and peers on the same GPU."""
    for modality in ("single", "multi"):
        cfg = PAPER.replace(modality=modality)
        data = samples(cfg, RUNS)
        for precision in PRECISIONS:
            settings = {"variant": f"triton, {precision}", "modality": modality, "runs": RUNS}
            report.attempt(
                "trajectory",
                settings,
                lambda p=precision, c=cfg, x=data: _launches(c, x, p),  # type: ignore[misc]
            )
        for name, make, runs in (
            ("eager", _eager, 1),
            ("vmapped torch", _vmapped, PEER_RUNS),
            ("JAX vmap", _jax, PEER_RUNS),
        ):
            settings = {"variant": name, "modality": modality, "runs": runs}
            report.attempt(
                "trajectory", settings,
                lambda f=make, c=cfg, x=data[:runs]: _rate(f(c, x), len(x), c.epochs),  # type: ignore[misc]
            )  # fmt: skip


def _launches(cfg: TrainConfig, data: Sequence[SignalNoiseData], precision: str) -> Row:
    engine = engine_of("triton", cfg.replace(precision=precision), data, "cuda")
    start = {name: x.clone() for name, x in engine.state().items()}

    def train() -> Tensor:
        engine.load_state(start)
        losses: Tensor = engine.train_epochs(0, cfg.epochs).loss
        return losses

    return _rate(train, len(data), cfg.epochs)


def _rate(train: Callable[[], Tensor], runs: int, epochs: int) -> Row:
    from .gpu_steps import timed

    found = timed(train, seconds=2.0, most=10)
    return {**found, "epochs": epochs, "runs_per_s": 1e3 * runs / found["ms"]["p50"]}


def _moved(data: SignalNoiseData) -> SignalNoiseData:
    return SignalNoiseData(**{k: None if v is None else v.cuda() for k, v in vars(data).items()})


def _eager(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
    mine = _moved(data[0])
    return lambda: peers.eager_losses(cfg, mine)


def _vmapped(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
    fields = _stacked(cfg, data)
    start = [fields.pop(k) for k in ("weights", "weights_b") if k in fields]
    of_runs = torch.func.vmap(torch.func.grad_and_value(_loss(cfg)))

    def losses() -> Tensor:
        weights, found = start, []
        for _ in range(cfg.epochs):
            gradients, values = of_runs(weights, fields)
            weights = [w - cfg.eta * g for w, g in zip(weights, gradients, strict=True)]
            found.append(values)
        return torch.stack(found, dim=1)

    return losses


def _stacked(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> dict[str, Tensor]:
    names = ["labels", "noise", "mu", "weights"]
    names += ["noise_b", "mu_b", "weights_b"] if cfg.is_multi else ["augmented"]
    return {k: torch.stack([getattr(x, k) for x in data]).cuda() for k in names}


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


def _jax(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
    jax, jnp = import_module("jax"), import_module("jax.numpy")
    if jax.default_backend() != "gpu":
        raise RuntimeError(f"JAX: expected a GPU backend, got {jax.default_backend()}")
    fields = {k: jnp.asarray(v.cpu().numpy()) for k, v in _stacked(cfg, data).items()}
    start = [fields[k] for k in ("weights", "weights_b") if k in fields]
    run = jax.jit(jax.vmap(peers.jax_scan(cfg)))

    def losses() -> Tensor:
        jax.block_until_ready(run(start, fields))
        return torch.empty(0)

    return losses


def tune(report: Report) -> None:
    """Times of other tiles, to be entered into `kernels/_tiles.py` by hand."""
    from mmcl_fast.kernels import encoder, trajectory
    from mmcl_fast.kernels._tiles import Tile

    from .gpu_steps import rows_like, timed

    data = samples(PAPER, TUNED_RUNS)
    for block_n, warps, block_m, block_k in (
        (64, 8, 64, 16), (64, 8, 64, 8), (64, 4, 32, 16), (32, 4, 64, 16), (32, 4, 32, 16),
    ):  # fmt: skip
        tile = Tile(block_n, warps, block_m, 1, block_k)
        trajectory.tile_for = lambda *key, tile=tile: tile
        report.attempt("tune", {"kernel": "trajectory", "tile": vars(tile)},
                       lambda: _launches(PAPER, data, "ieee"))  # fmt: skip
    x, w = rows_like(32768, 4096, torch.bfloat16, 0), rows_like(2048, 4096, torch.bfloat16, 1)
    h = encoder.encoder_fwd(x, w, q=1)
    for block_n, block_m, block_k, stages in (
        (128, 256, 64, 3), (128, 256, 64, 4), (128, 128, 64, 4), (256, 128, 64, 3),
        (256, 128, 32, 3),
    ):  # fmt: skip
        tile = Tile(block_n, 8, block_m, stages, block_k)
        encoder.tile_for = lambda *key, tile=tile: tile
        for name, call in (
            ("encoder_fwd", lambda: encoder.encoder_fwd(x, w, q=1)),
            ("encoder_bwd", lambda: encoder.encoder_bwd(x, h, h, q=1)),
        ):
            settings = {"kernel": name, "tile": vars(tile)}
            report.attempt("tune", settings, lambda f=call: timed(f, seconds=0.5))  # type: ignore[misc]


__all__ = ["gate_trajectory", "trajectory", "tune"]

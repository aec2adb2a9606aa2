"""Model variants that are left to the engine gram: batches of 16 against eager PyTorch, one thread.

`python -m bench.cpu.gram_variants [--json FILE] [--short | --quick]`; where installed,
`python -m mmcl_fast.bench.cpu.gram_variants`.

Each option at the paper's size; every way to train is given data and initial weights and returns
the losses of all epochs. `flop_ratio` is the products of an epoch over those of the paper's model.
Nothing of an option is timed unless all its loss curves agree with autograd in float64.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.own_arrays import as_data
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import ENGINES, EngineSpec, MultiEpochEngine

# Relative, so that both commands above work; as `bench.*` these would be banned imports.
from .. import record
from ..arguments import make_parser
from ..peers.variant_descent import variant_losses
from ..timing.measure import Quantiles, interleaved, paired_ratio, single_thread
from .train import GATE

PAPER = TrainConfig(device="cpu", evaluate_every=0)
LOGISTIC = PAPER.replace(objective="logistic")
CASES: MappingProxyType[str, TrainConfig] = MappingProxyType(
    {
        "the paper's model, minibatches of 25": PAPER.replace(optimizer="sgd", batch_size=25),
        "negatives of every label, minibatches of 25": PAPER.replace(
            negatives="all", optimizer="sgd", batch_size=25
        ),
        "label-noise gradient descent": LOGISTIC.replace(
            label_noise=0.1, label_noise_draw="per_epoch"
        ),
    }
)
QUICK_CASES = tuple(CASES)[-1:]
BATCH = 16
EAGER, GRAM = "eager", f"gram, {BATCH} runs"
ROUNDS, FEW_ROUNDS = 5, 3


@dataclass(frozen=True)
class Way:
    """One way to train: the call that trains `runs` runs of given data."""

    call: Callable[[], Tensor]
    runs: int


def engine_losses(name: str, cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Tensor:
    """Losses before each epoch of runs of seeds 0, 1, ... side by side, [R, epochs]."""
    configs = [cfg.replace(seed=seed) for seed in range(len(data))]
    engine = ENGINES[name].build(EngineSpec(configs, data, torch.device("cpu")))
    if isinstance(engine, MultiEpochEngine):
        return engine.train_epochs(0, cfg.epochs).loss
    return torch.stack([engine.train_epoch(t) for t in range(cfg.epochs)], dim=1)


def ways(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> dict[str, Way]:
    """All that is timed, by name."""
    return {
        EAGER: Way(partial(variant_losses, cfg, data[0]), 1),
        GRAM: Way(partial(engine_losses, "gram", cfg, data), len(data)),
    }


def products(cfg: TrainConfig) -> float:
    """Floating-point operations of an epoch of one modality in coefficient space, all active.

    Columns x vectors x m for the update; two products with the scores of the loss, and of
    minibatches one for the loss of all samples, which is recorded, and two with their own scores.
    """
    views = 0 if cfg.objective == "logistic" else cfg.n
    update = 2.0 * cfg.m * (cfg.n + 1) * (cfg.n + 1 + views)
    if cfg.objective == "logistic":
        return update
    scores = (1.0 if cfg.negatives == "all" else 0.5) * cfg.n**2 * 2 * cfg.m
    if cfg.batch_size is None:
        return update + 2 * 2 * scores
    return update + 2 * scores + 2 * 2 * scores * cfg.batch_size / cfg.n


def distances(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> dict[str, float]:
    """Each way's largest distance of a loss from float64 autograd, over the first loss."""
    exact = cfg.replace(dtype="float64")
    truth = []
    for seed, x in enumerate(data[:2]):
        own = exact.replace(seed=seed)
        spec = EngineSpec([own], [as_data(own, x)], torch.device("cpu"))
        engine = ENGINES["reference"].build(spec)
        truth.append(torch.cat([engine.train_epoch(t) for t in range(cfg.epochs)]))
    far = {}
    for name, way in ways(cfg, data).items():
        losses = way.call().double().reshape(way.runs, cfg.epochs)
        gaps = [(ours - x).abs().amax() / x[0] for ours, x in zip(losses, truth, strict=False)]
        far[name] = max(gap.item() for gap in gaps)
    return far


def measure(name: str, cfg: TrainConfig, batch: int, rounds: int) -> list[dict[str, Any]] | None:
    """Check and time one option; None if a curve is wrong."""
    data = [sample(cfg.replace(seed=seed)) for seed in range(batch)]
    far = distances(cfg, data)
    if wrong := [way for way, x in far.items() if not x <= GATE]:
        print(f"{name}: {', '.join(wrong)}: losses are wrong, {far}", file=sys.stderr)
        return None
    trained = ways(cfg, data)
    seconds = interleaved({way: x.call for way, x in trained.items()}, rounds)
    per_run = {way: [s / x.runs for s in seconds[way]] for way, x in trained.items()}
    shared = {k: getattr(cfg, k) for k in ("modality", "n", "d", "m", "epochs", "dtype")}
    return [
        {
            "op": "gram_variants",
            "variant": way,
            "settings": {
                "option": name, **shared, "runs": x.runs, "threads": 1, "rounds": rounds,
            },
            "cpu_ms_per_run": Quantiles.of(per_run[way]).to_dict(scale=1e3),
            "least_ms_per_run": round(1e3 * min(per_run[way]), 4),
            "flop_ratio": round(products(cfg) / products(PAPER), 3),
            "times_eager": round(paired_ratio(per_run[EAGER], per_run[way]), 2),
            "relative_loss_error": far[way],
        }
        for way, x in trained.items()
    ]  # fmt: skip


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    print(f"{'':50}{'':14}{'ms a run':>10}{'least':>9}{'x eager':>9}{'flop x':>8}")
    for row in rows:
        print(
            f"{row['settings']['option']:50}{row['variant']:14}"
            f"{row['cpu_ms_per_run']['p50']:10.2f}{row['least_ms_per_run']:9.2f}"
            f"{row['times_eager']:9.1f}{row['flop_ratio']:8.2f}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if any loss curve is wrong."""
    args = make_parser("gram_variants", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    few = args.quick or args.short
    before = record.environment()
    rows: list[dict[str, Any]] = []
    for name in QUICK_CASES if few else CASES:
        measured = measure(name, CASES[name], BATCH, FEW_ROUNDS if few else ROUNDS)
        if measured is None:
            return 1
        rows += measured
    show(rows)
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["CASES", "main", "measure", "products", "ways"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())

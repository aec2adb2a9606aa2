"""Model variants at the paper's size: native and gram against eager PyTorch, on one thread.

`python -m bench.cpu.variants [--json FILE] [--short | --quick]`; where installed,
`python -m mmcl_fast.bench.cpu.variants`.

One option of `VariantSettings` a row, or several that belong together. Every way to train is given
data and initial weights and returns the losses of all epochs. `flop_ratio` is the products of an
epoch over those of the paper's model of the same modality; `time_ratio`, the same of the time by
the same engine. Nothing of an option is timed unless all its loss curves agree with autograd in
float64.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
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
from ..peers.variants import variant_losses
from ..timing.measure import Quantiles, interleaved, paired_ratio, single_thread
from .train import GATE

PAPER = TrainConfig(device="cpu", evaluate_every=0)
MULTI = PAPER.replace(modality="multi")
LOGISTIC = PAPER.replace(objective="logistic")
CLIP = {"negatives": "all", "stop_gradient": "none", "similarity": "cosine", "eta_tau": 0.01}
CASES: MappingProxyType[str, TrainConfig] = MappingProxyType(
    {
        "the paper's model": PAPER,
        "the paper's model, multi-modal": MULTI,
        "negatives of every label": PAPER.replace(negatives="all"),
        "mismatched pairs": MULTI.replace(pair_noise=0.2),
        "gradients through keys": PAPER.replace(stop_gradient="none"),
        "gradients through keys, multi-modal": MULTI.replace(stop_gradient="none"),
        "cosine": PAPER.replace(similarity="cosine", eta=0.1),
        "CLIP: all of these, and a temperature that learns": MULTI.replace(eta=0.1, **CLIP),
        "10 classes": PAPER.replace(classes=10),
        "a spurious attribute": PAPER.replace(spurious_norm=3.0),
        "masked views": PAPER.replace(view_mask=0.2),
        "orthogonal noise": PAPER.replace(data="orthogonal"),
        "supervised": LOGISTIC,
        "label-noise gradient descent": LOGISTIC.replace(
            label_noise=0.1, label_noise_draw="per_epoch"
        ),
        "minibatches of 25": PAPER.replace(optimizer="sgd", batch_size=25),
    }
)
BASES = ("the paper's model", "the paper's model, multi-modal")
QUICK_CASES = (BASES[0], "negatives of every label", "supervised")
BATCH = 16
EAGER, GRAM, NATIVE = "eager", f"gram, {BATCH} runs", "native"
ROUNDS, FEW_ROUNDS = 7, 3


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
    """All that can train a config exactly, by name."""
    found = {EAGER: Way(partial(variant_losses, cfg, data[0]), 1)}
    if ENGINES["gram"].why_not(cfg) is None:
        found[GRAM] = Way(partial(engine_losses, "gram", cfg, data), len(data))
    if ENGINES["native"].why_not(cfg) is None:
        found[NATIVE] = Way(partial(engine_losses, "native", cfg, data[:1]), 1)
    return found


def products(cfg: TrainConfig) -> float:
    """Floating-point operations of an epoch in coefficient space, all neurons active.

    Of each modality: columns x vectors x m for the update, and for each direction two products with
    its scores, a third where the gradient also flows to keys.
    """
    views = 0 if cfg.is_multi or cfg.objective == "logistic" else cfg.n
    columns = cfg.n + cfg.axes + (views if cfg.trains_keys else 0)
    update = 2.0 * cfg.m * columns * (cfg.n + cfg.axes + views)
    share = 1.0 if cfg.negatives == "all" else 1 - 1 / (cfg.classes or 2)
    scores = 2.0 * share * cfg.n**2 * (2 + cfg.has_spurious) * cfg.m * (2 + cfg.trains_keys)
    sides = 2 if cfg.is_multi else 1
    if cfg.optimizer == "sgd":  # the loss of all samples, and the passes over minibatches
        assert cfg.batch_size is not None
        return sides * (update + scores / 2 + scores * cfg.batch_size / cfg.n)
    return sides * (update + (0.0 if cfg.objective == "logistic" else scores))


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
    base = PAPER.replace(modality=cfg.modality)
    shared = {k: getattr(cfg, k) for k in ("modality", "n", "d", "m", "epochs", "dtype")}
    return [
        {
            "op": "variants",
            "variant": way,
            "settings": {
                "option": name, **shared, "runs": x.runs, "threads": 1, "rounds": rounds,
            },
            "cpu_ms_per_run": Quantiles.of(per_run[way]).to_dict(scale=1e3),
            "least_ms_per_run": round(1e3 * min(per_run[way]), 4),
            "flop_ratio": round(products(cfg) / products(base), 3),
            "times_eager": round(paired_ratio(per_run[EAGER], per_run[way]), 2),
            "relative_loss_error": far[way],
        }
        for way, x in trained.items()
    ]  # fmt: skip


def with_time_ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with their time over that of the paper's model of the same modality and engine."""
    base = {
        (row["variant"], row["settings"]["modality"]): row["least_ms_per_run"]
        for row in rows
        if row["settings"]["option"] in BASES
    }
    return [
        {**row, "time_ratio": round(row["least_ms_per_run"] / base[key], 3)} if key in base else row
        for row in rows
        for key in [(row["variant"], row["settings"]["modality"])]
    ]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    print(f"{'':50}{'':14}{'ms a run':>10}{'least':>9}{'x eager':>9}{'flop x':>8}{'time x':>8}")
    for row in rows:
        print(
            f"{row['settings']['option']:50}{row['variant']:14}"
            f"{row['cpu_ms_per_run']['p50']:10.2f}{row['least_ms_per_run']:9.2f}"
            f"{row['times_eager']:9.1f}{row['flop_ratio']:8.2f}{row.get('time_ratio', 1.0):8.2f}"
        )
    ours = [row["times_eager"] for row in rows if row["variant"] != EAGER]
    print(f"median {median(ours):.1f} times eager PyTorch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if any loss curve is wrong."""
    args = make_parser("variants", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    few = args.quick or args.short
    before = record.environment()
    rows: list[dict[str, Any]] = []
    for name in QUICK_CASES if few else CASES:
        measured = measure(name, CASES[name], BATCH, FEW_ROUNDS if few else ROUNDS)
        if measured is None:
            return 1
        rows += measured
    rows = with_time_ratios(rows)
    show(rows)
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["CASES", "main", "measure", "products", "ways", "with_time_ratios"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())

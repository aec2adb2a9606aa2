"""Training at the paper's size: our engines against eager PyTorch and a JAX scan, on one thread.

`python -m bench.cpu.train [--json FILE] [--short | --quick] [--peers A,B]`; where installed,
`python -m mmcl_fast.bench.cpu.train`.

Every variant is given data and initial weights and returns the losses of all epochs; evaluation is
off. Our times include the inner products that training in coefficient space begins with, except in
"native, Gram given". JAX's include neither its compilation, which is printed, nor moving the data
to it. Nothing is timed unless all loss curves agree with autograd in float64.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import nan
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.own_arrays import as_data
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import ENGINES, EngineSpec, MultiEpochEngine, NativeEngine
from mmcl_fast.training import train

# Relative, so that both commands above work; as `bench.*` these would be banned imports.
from .. import record
from ..arguments import make_parser
from ..peers.registry import usable
from ..peers.training import (
    eager_losses,
    jax_losses,
    jax_vmap_losses,
    textbook_losses,
    vmap_losses,
)
from ..timing.measure import Quantiles, interleaved, paired_ratio, peak_rss_mib, single_thread

PAPER = TrainConfig(device="cpu", evaluate_every=0)
BATCHES = (8, 16)
TEXTBOOK, EAGER, SCAN = "eager, textbook", "eager, tuned", "JAX jit + scan"
TORCH_VMAP, JAX_VMAP = "torch.func vmap, 8 runs", "JAX vmap, 8 runs"
PEERS = {
    "times_jax": SCAN,
    "times_eager": EAGER,
    "times_textbook": TEXTBOOK,
    "times_torch_vmap": TORCH_VMAP,
    "times_jax_vmap": JAX_VMAP,
}
SHORT_OF = ("primal", "gram, train()")  # rows that mmcl bench does without
# Float32 rounding over 200 epochs; a wrong term moves the curves by percents. Relative to the first
# loss because late losses are small differences of large scores.
GATE = 1e-4


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        name: Row of the table.
        bind: Takes the data of `runs` runs; returns a call that trains them and gives the losses,
            [epochs] or [runs, epochs].
        runs: Runs that one call trains.
    """

    name: str
    bind: Callable[[Sequence[SignalNoiseData]], Callable[[], Tensor]]
    runs: int = 1


def engine_losses(name: str, cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Tensor:
    """Losses before each update of runs trained side by side, [R, epochs]."""
    configs = [cfg] * len(data)  # seeds matter to the data alone, and those are given
    with torch.inference_mode(name != "reference"):
        engine = ENGINES[name].build(EngineSpec(configs, data, torch.device("cpu")))
        if isinstance(engine, MultiEpochEngine):
            return engine.train_epochs(0, cfg.epochs).loss
        return torch.stack([engine.train_epoch(t) for t in range(cfg.epochs)], dim=1)


def given_gram(cfg: TrainConfig, data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
    """Losses of the native engine from inner products that are there; the state starts anew."""
    engine = NativeEngine(EngineSpec([cfg] * len(data), data, torch.device("cpu")))
    start = {name: tensor.clone() for name, tensor in engine.state().items()}

    def losses() -> Tensor:
        engine.load_state(start)
        return engine.train_epochs(0, cfg.epochs).loss

    return losses


def train_losses(name: str, cfg: TrainConfig, data: SignalNoiseData | None) -> Tensor:
    """Losses by the public entry point, which also records signal, noise, gamma and rho."""
    return train(cfg.replace(engine=name), data).loss[: cfg.epochs]


def make_variants(cfg: TrainConfig, peers: Sequence[str] | None = None) -> list[Variant]:
    """All variants of one setting that can run here; of peers those named, or all."""

    def engine(name: str) -> Callable[[Sequence[SignalNoiseData]], Callable[[], Tensor]]:
        return lambda data: partial(engine_losses, name, cfg, data)

    variants = [
        Variant(TEXTBOOK, lambda data: partial(textbook_losses, cfg, data[0])),
        Variant(EAGER, lambda data: partial(eager_losses, cfg, data[0])),
        Variant(SCAN, lambda data: jax_losses(cfg, data[0])),
        Variant("primal", engine("primal")),
        Variant("gram, 1 run", engine("gram")),
        Variant("gram, train()", lambda data: partial(train_losses, "gram", cfg, data[0])),
        Variant("native, Gram given", lambda data: given_gram(cfg, data)),
        Variant("native, 1 run", engine("native")),
        Variant("native, train()", lambda data: partial(train_losses, "native", cfg, data[0])),
    ]
    variants += [Variant(f"gram, {k} runs", engine("gram"), k) for k in BATCHES]
    variants += [
        Variant(TORCH_VMAP, lambda data: partial(vmap_losses, cfg, data), 8),
        Variant(JAX_VMAP, lambda data: jax_vmap_losses(cfg, data), 8),
    ]
    return list(usable({v.name: v for v in variants}, peers).values())


def distances(
    cfg: TrainConfig,
    data: Sequence[SignalNoiseData],
    variants: Sequence[Variant],
    least_runs: int | None = None,
) -> dict[str, list[float]]:
    """Each variant's largest distance of the loss from float64 autograd, for each run.

    Args:
        cfg: Settings.
        data: One a run.
        variants: What to compare; each at all runs, or
        least_runs: at so many, or at as many as one call of it trains.
    """
    exact = cfg.replace(dtype="float64")
    truth = torch.cat([engine_losses("reference", exact, [as_data(exact, x)]) for x in data])
    distance_of = {}
    for v in variants:
        count = max(v.runs, least_runs or len(data))
        groups = [data[k : k + v.runs] for k in range(0, count, v.runs)]
        losses = torch.cat([v.bind(group)().reshape(-1, cfg.epochs) for group in groups])
        distance_of[v.name] = (losses.double() - truth[:count]).abs().amax(1).tolist()
    return distance_of


def gate(far: Mapping[str, Sequence[float]], first_loss: float) -> list[str]:
    """Names of variants with a wrong curve (NaN included)."""
    limit = GATE * first_loss
    return [name for name, runs in far.items() if not all(x <= limit for x in runs)]


def measure(
    cfg: TrainConfig,
    data: Sequence[SignalNoiseData],
    variants: Sequence[Variant],
    far: Mapping[str, Sequence[float]],
    rounds: int,
) -> list[dict[str, Any]]:
    """Time the variants and describe each as a row of a results file."""
    seconds = interleaved({v.name: v.bind(data[: v.runs]) for v in variants}, rounds)
    per_run = {v.name: [s / v.runs for s in seconds[v.name]] for v in variants}
    settings = {k: getattr(cfg, k) for k in ("modality", "n", "d", "m", "q", "epochs", "dtype")}
    rows = []
    for v in variants:
        row: dict[str, Any] = {
            "op": "train",
            "variant": v.name,
            "settings": {**settings, "runs": v.runs, "threads": 1, "rounds": rounds},
            "cpu_ms_per_run": Quantiles.of(per_run[v.name]).to_dict(scale=1e3),
            "max_abs_loss_error": max(far[v.name]),
            "median_abs_loss_error": median(far[v.name]),
            "loss_error_runs": len(far[v.name]),
        }
        for key, peer in PEERS.items():
            if peer in per_run:
                row[key] = round(paired_ratio(per_run[peer], per_run[v.name]), 2)
        rows.append(row)
    return rows


def show(cfg: TrainConfig, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of one setting."""
    print(
        f"\n{cfg.modality}-modal, n={cfg.n} d={cfg.d} m={cfg.m} q={cfg.q}, {cfg.epochs} epochs, "
        f"{cfg.dtype}, 1 thread; CPU ms per run; max |loss - float64| of each of "
        f"{rows[0]['loss_error_runs']} runs"
    )
    if (compile_s := rows[0]["jax_compile_s"]) is not None:
        print(f"JAX compilation and first call: {compile_s:.2f} s wall, not counted")
    heads = [f"× {key.removeprefix('times_').replace('_', ' ')}" for key in PEERS]
    head = f"{'':24}{'p20':>9}{'p50':>9}{'p80':>9}" + "".join(f"{h:>13}" for h in heads)
    print(head + f"{'worst':>10}{'median':>10}")
    for row in rows:
        t = row["cpu_ms_per_run"]
        times = "".join(f"{row.get(key, nan):13.2f}" for key in PEERS)
        print(
            f"{row['variant']:24}{t['p20']:9.2f}{t['p50']:9.2f}{t['p80']:9.2f}{times}"
            f"{row['max_abs_loss_error']:10.1e}{row['median_abs_loss_error']:10.1e}"
        )


def first_call_s(cfg: TrainConfig, data: SignalNoiseData) -> float:
    """Wall seconds of JAX's first call, nearly all compilation."""
    begin = time.perf_counter()
    jax_losses(cfg, data)()
    return time.perf_counter() - begin


@dataclass(frozen=True)
class Amount:
    """How much to measure: rounds, runs of single-modal and of multi-modal, runs to compare."""

    rounds: int
    runs: Mapping[str, int]
    least_runs: int | None = None
    left_out: tuple[str, ...] = ()


FULL = Amount(11, {"single": 16, "multi": 16})
SHORT = Amount(3, {"single": 8, "multi": 2}, 2, SHORT_OF)
QUICK = Amount(3, {"single": 8, "multi": 8})


def run_setting(
    cfg: TrainConfig, amount: Amount, peers: Sequence[str] | None
) -> list[dict[str, Any]] | None:
    """Check, time and print one setting; None if a curve is wrong."""
    runs = amount.runs[cfg.modality]
    data = [sample(cfg.replace(seed=seed)) for seed in range(runs)]
    variants = [
        v
        for v in make_variants(cfg, peers)
        if v.runs <= runs and not v.name.startswith(amount.left_out or "\0")
    ]
    has_jax = any(v.name == SCAN for v in variants)
    compile_s = first_call_s(cfg, data[0]) if has_jax else None
    far = distances(cfg, data, variants, amount.least_runs)
    first_loss = float(variants[0].bind(data[:1])()[0])
    if wrong := gate(far, first_loss):
        for name in wrong:
            worst = max(far[name], key=lambda x: (x != x, x))  # a NaN first
            print(f"{cfg.modality}: {name}: losses are {worst:.1e} from float64", file=sys.stderr)
        return None
    rows = measure(cfg, data, variants, far, amount.rounds)
    rows = [{**row, "jax_compile_s": compile_s} for row in rows]
    show(cfg, rows)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if any loss curve is wrong."""
    args = make_parser("train", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    amount = SHORT if args.short else QUICK if args.quick else FULL
    before = record.environment()
    rows: list[dict[str, Any]] = []
    for modality in ("single", "multi"):
        measured = run_setting(PAPER.replace(modality=modality), amount, args.peers)
        if measured is None:
            return 1
        rows += measured
    print(f"\npeak resident memory {peak_rss_mib():.0f} MiB; load before {before['load_1min']}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["Variant", "distances", "engine_losses", "gate", "main", "make_variants", "measure"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())

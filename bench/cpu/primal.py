"""A training step on the weights at scale, against eager PyTorch and torch.compile.

`python -m bench.cpu.primal [--json FILE] [--short | --quick] [--peers A,B]`; where installed,
`python -m mmcl_fast.bench.cpu.primal`.

One full-batch step of gradient descent with all negatives, float32, one thread, CPU time, variants
interleaved; data and initial weights are given. Nothing is timed unless the losses of three steps
by every variant agree with autograd in float64; those of `primal, bf16`, whose products are
rounded, to 2^-7. Memory is that of a fresh process, above its data.

The step's flop are those of the products that it cannot do without (`necessary_flop`), and its rate
is compared with the fastest of some plain products, timed in the same rounds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import nan
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.losses.torch_backend.matmul import product

from .. import record
from ..arguments import make_parser
from ..peers.registry import usable
from ..peers.training import EagerLoss, eager_loss, eager_losses, textbook_losses
from ..timing.measure import Quantiles, added_mib, interleaved, paired_ratio, single_thread
from ..timing.memory import in_fork
from .train import EAGER, TEXTBOOK, Variant, distances, engine_losses, gate

# A step moves the weights by about their own size, so a wrong gradient shows in the next loss.
SIZE = TrainConfig(
    n=4096, d=4096, m=512, eta=1.0, epochs=1, device="cpu", engine="primal", evaluate_every=0
)
SHORT = SIZE.replace(n=2048, d=2048)  # of mmcl bench, single-modal
GATE_EPOCHS = 3
OURS, COMPILED = "primal", "eager, tuned, compiled"
OURS_BF16 = "primal, bf16"
BF16_GATE = 2**-7  # of the first loss: rounding both factors of a product
CUBE = 1024
MODALITIES = ("single", "multi")


def necessary_flop(cfg: TrainConfig) -> float:
    """Multiplications and additions of the step's matrix products.

    Encoder of all samples and views, weight gradients; scores between the labels once for both of
    them, and a mixture of negatives for every query. The labels are taken to be equally frequent.
    """
    n, m = cfg.n, cfg.m
    if cfg.is_multi:
        return 2.0 * n * m * (2 * cfg.d + 2 * cfg.d_b_value) + 3.0 * n * n * m
    return 2.0 * n * m * 3 * cfg.d + 1.5 * n * n * m


def make_variants(cfg: TrainConfig, peers: Sequence[str] | None = None) -> list[Variant]:
    """Ours, and of the peers that can run here those named, or all."""

    def compiled(data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
        loss_of: EagerLoss = torch.compile(eager_loss(cfg, data[0]))
        return lambda: eager_losses(cfg, data[0], loss_of)

    def tuned(data: Sequence[SignalNoiseData]) -> Callable[[], Tensor]:
        return partial(eager_losses, cfg, data[0], eager_loss(cfg, data[0]))

    rounded = cfg.replace(precision="bf16")
    variants = [
        Variant(OURS, lambda data: partial(engine_losses, "primal", cfg, data)),
        Variant(OURS_BF16, lambda data: partial(engine_losses, "primal", rounded, data)),
        Variant(TEXTBOOK, lambda data: partial(textbook_losses, cfg, data[0])),
        Variant(EAGER, tuned),
        Variant(COMPILED, compiled),
    ]
    return list(usable({v.name: v for v in variants}, peers).values())


def plain_products(cfg: TrainConfig, data: SignalNoiseData) -> dict[str, Callable[[], object]]:
    """Products whose best rate stands for what this machine can do, by name."""
    cube = torch.randn(CUBE, CUBE)
    return {
        "product of a cube": lambda: product(cube, cube),
        "product of the encoder": lambda: product(data.noise, data.weights),
        "torch's product of the encoder": lambda: torch.mm(data.noise, data.weights.T),
    }


def product_rates(cfg: TrainConfig, seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """GFLOP/s of the plain products."""
    encoder = 2e-9 * cfg.n * cfg.d * cfg.m
    flop = (2e-9 * CUBE**3, encoder, encoder)
    return {
        name: f / Quantiles.of(s).p50 for f, (name, s) in zip(flop, seconds.items(), strict=True)
    }


def peak_mib(cfg: TrainConfig, variant: str) -> float:
    """Memory that a step adds, measured in a process of its own."""
    return round(in_fork(lambda: [measure_memory(cfg, variant)])[0], 1)


def measure_memory(cfg: TrainConfig, variant: str) -> float:
    """The same of this process; a small step first loads libraries and compiles."""
    by_size = {}
    for size in (cfg.replace(n=64, d=64, m=64), cfg):
        made = next(v for v in make_variants(size) if v.name == variant)
        by_size[size.n] = made.bind([sample(size)])
        if size.n != cfg.n:
            by_size[size.n]()
    return added_mib(by_size[cfg.n])


def run_setting(
    cfg: TrainConfig, rounds: int, peaks: Mapping[str, float], peers: Sequence[str] | None = None
) -> list[dict[str, Any]] | None:
    """Check, time and print one setting; None if a variant is wrong.

    Args:
        cfg: Settings.
        rounds: Repeats.
        peaks: From `peak_mib`, by variant.
        peers: As in `make_variants`.
    """
    data = [sample(cfg)]
    long = cfg.replace(epochs=GATE_EPOCHS)
    far = distances(long, data, make_variants(long, peers))
    first = float(engine_losses("primal", cfg, data)[0, 0])
    wrong = gate({name: runs for name, runs in far.items() if name != OURS_BF16}, first)
    if not max(far[OURS_BF16]) <= BF16_GATE * first:
        wrong.append(OURS_BF16)
    if wrong:
        print(f"{cfg.modality}: wrong: {', '.join(wrong)}: {far}", file=sys.stderr)
        return None
    variants = make_variants(cfg, peers)
    products = plain_products(cfg, data[0])
    seconds = interleaved({v.name: v.bind(data) for v in variants} | products, rounds)
    rates = product_rates(cfg, {name: seconds[name] for name in products})
    best, flop = max(rates.values()), necessary_flop(cfg)
    settings = {k: getattr(cfg, k) for k in ("modality", "n", "d", "m", "dtype")}
    rows = []
    for v in variants:
        time = Quantiles.of(seconds[v.name])
        row: dict[str, Any] = {
            "op": "primal",
            "variant": v.name,
            "settings": {**settings, "threads": 1, "rounds": rounds},
            "cpu_ms": time.to_dict(scale=1e3),
            "flop": flop,
            "of_product_rate": round(flop / time.p50 / best / 1e9, 3),
            "product_gflop_s": {name: round(rate, 1) for name, rate in rates.items()},
            "peak_mib": peaks[v.name],
            "max_abs_loss_error": max(far[v.name]),
        }
        for peer in (v.name for v in variants if v.name not in (OURS, OURS_BF16)):
            row[f"times {peer}"] = round(paired_ratio(seconds[peer], seconds[v.name]), 2)
        rows.append(row)
    show(cfg, rows)
    return rows


def show(cfg: TrainConfig, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of one setting."""
    print(
        f"\n{cfg.modality}-modal step, n={cfg.n} d={cfg.d} m={cfg.m}, {cfg.dtype}, 1 thread; "
        f"{rows[0]['flop'] / 1e9:.1f} GFLOP; products, GFLOP/s: "
        + ", ".join(f"{rate:.0f} {name}" for name, rate in rows[0]["product_gflop_s"].items())
    )
    print(
        f"{'':24}{'p20':>9}{'p50':>9}{'p80':>9}{'of rate':>9}{'× textbook':>12}{'× eager':>9}"
        f"{'× compiled':>12}{'MiB':>7}{'worst':>10}"
    )
    for row in rows:
        t = row["cpu_ms"]
        times = [row.get(f"times {peer}", nan) for peer in (TEXTBOOK, EAGER, COMPILED)]
        print(
            f"{row['variant']:24}{t['p20']:9.1f}{t['p50']:9.1f}{t['p80']:9.1f}"
            f"{row['of_product_rate']:9.0%}{times[0]:12.2f}{times[1]:9.2f}{times[2]:12.2f}"
            f"{row['peak_mib']:7.0f}{row['max_abs_loss_error']:10.1e}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if any variant is wrong."""
    args = make_parser("primal", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    before = record.environment()
    settings = [SIZE.replace(modality=modality) for modality in MODALITIES]
    if args.short or args.quick:
        settings = [SHORT]
    peaks = [  # before anything is computed here: see `memory`
        {v.name: peak_mib(cfg, v.name) for v in make_variants(cfg, args.peers)} for cfg in settings
    ]
    rows: list[dict[str, Any]] = []
    for cfg, weights in zip(settings, peaks, strict=True):
        measured = run_setting(cfg, 3 if args.short or args.quick else 9, weights, args.peers)
        if measured is None:
            return 1
        rows += measured
    print(f"\nload before {before['load_1min']}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["main", "make_variants", "necessary_flop", "run_setting"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())

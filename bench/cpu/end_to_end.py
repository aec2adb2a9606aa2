"""A run from its config to its curves, data included, at any dimension: native against eager.

`python -m bench.cpu.end_to_end [--json FILE] [--short | --quick]`; installed: `python -m
mmcl_fast.bench.cpu.end_to_end`.

CPU time of one thread; evaluation is off. Ours are `mmcl_fast.train(cfg)` with explicit and with
reduced data. Eager draws its normals with torch and trains on weights (`bench/peers/training.py`);
some of its epochs are timed and scaled to all. At large d eta is scaled to keep eta d, on which the
speed of learning depends. Nothing is timed unless a few epochs of all agree with float64 autograd
on equal data; that reduced data have the same law is the matter of
tests/data/signal_noise/test_reduced.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.data import labels
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData, axis_vectors
from mmcl_fast.training import train

from .. import record
from ..arguments import make_parser
from ..peers.registry import usable
from ..peers.training import eager_losses, textbook_losses
from ..timing.measure import Quantiles, single_thread
from .train import EAGER, TEXTBOOK, distances, gate, make_variants

DIMENSIONS = (2000, 200_000)
REDUCED, EXPLICIT = "train(), reduced data", "train(), explicit data"
EAGER_FORMS = {EAGER: eager_losses, TEXTBOOK: textbook_losses}
GATE_EPOCHS = 3
Row = dict[str, Any]


def torch_data(cfg: TrainConfig) -> SignalNoiseData:
    """Data and weights of a single-modal run as a script would make them; no test set."""
    noise = torch.randn(cfg.n, cfg.d)
    return SignalNoiseData(
        labels=labels(cfg.data_key, "labels", (1, cfg.n), dtype=cfg.dtype)[0],
        mu=axis_vectors(cfg.d, 0, [cfg.mu_norm], torch.empty(0))[0],
        nu=axis_vectors(cfg.d, 0, [cfg.nu_norm], torch.empty(0))[0],
        noise=noise,
        augmented=noise + cfg.sigma_eps * torch.randn(cfg.n, cfg.d),
        weights=cfg.sigma_0 * torch.randn(cfg.m, cfg.d),
        test_labels=torch.ones(0),
        test_noise=torch.empty(0, cfg.d),
    )


def wrong(cfg: TrainConfig) -> list[str]:
    """Variants whose first losses differ from float64 autograd."""
    few = cfg.replace(epochs=GATE_EPOCHS)
    data = [sample(few)]
    compared = (*EAGER_FORMS, "native, train()")
    variants = [v for v in make_variants(few) if v.name in compared]
    first = float(variants[0].bind(data)()[0])
    return gate(distances(few, data, variants), first_loss=first)


def cpu_s(call: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def eager_s(losses: Callable[..., object], cfg: TrainConfig, epochs: int) -> float:
    """CPU seconds of data and training, the training timed for some epochs and scaled to all."""
    begin = time.process_time()
    data = torch_data(cfg)
    drawn = time.process_time() - begin
    losses(cfg.replace(epochs=1), data)  # warm
    some = min(epochs, cfg.epochs)
    return drawn + cpu_s(lambda: losses(cfg.replace(epochs=some), data)) * cfg.epochs / some


def measure(cfg: TrainConfig, rounds: int, epochs: int, peers: Sequence[str] | None) -> list[Row]:
    """Rows of one dimension: ours `rounds` times and more, eager once."""
    reduced = cfg.replace(data="reduced")
    train(reduced)
    seconds = {
        REDUCED: [cpu_s(lambda: train(reduced)) for _ in range(4 * rounds)],
        EXPLICIT: [cpu_s(lambda: train(cfg)) for _ in range(rounds)],
    }
    for name, losses in usable(EAGER_FORMS, peers).items():
        seconds[name] = [eager_s(losses, cfg, epochs)]
    medians = {name: Quantiles.of(s).p50 for name, s in seconds.items()}
    rows = []
    for name, samples in seconds.items():
        row: Row = {
            "op": "whole",
            "variant": name,
            "settings": {k: getattr(cfg, k) for k in ("n", "d", "m", "q", "epochs", "dtype")},
            "cpu_ms": Quantiles.of(samples).to_dict(scale=1e3),
        }
        timed = epochs if name in EAGER_FORMS else cfg.epochs
        row["settings"] |= {"threads": 1, "rounds": len(samples), "epochs_timed": timed}
        for peer in medians:
            if peer in EAGER_FORMS:
                row[f"times {peer}"] = round(medians[peer] / medians[name], 2)
        rows.append(row)
        print(f"d={cfg.d:<8} {name:24}{1e3 * medians[name]:12.2f}", end="")
        print(f"{medians[name] / medians[REDUCED]:10.1f} x reduced")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if a curve is wrong."""
    args = make_parser("whole", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    rounds, epochs = (1, 1) if args.quick else (3, 4) if args.short else (5, 200)
    before = record.environment()
    base = TrainConfig(device="cpu", evaluate_every=0)
    settings = [base.replace(d=d, eta=base.eta * base.d / d) for d in DIMENSIONS]
    for cfg in settings:
        if bad := wrong(cfg):
            print(f"d = {cfg.d}: losses of {', '.join(bad)} are wrong", file=sys.stderr)
            return 1
    print(f"CPU ms of a single-modal run of {base.epochs} epochs, n={base.n} m={base.m}, with data")
    rows = [row for cfg in settings for row in measure(cfg, rounds, epochs, args.peers)]
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["eager_s", "main", "measure", "torch_data", "wrong"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())

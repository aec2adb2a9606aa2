"""A run from its config to its curves, data included, at any dimension: native against eager.

`python -m bench.whole [--d 200000] [--rounds 5]`; installed: `python -m mmcl_fast.bench.whole`.

CPU time of one thread; evaluation is off. Ours are `mmcl_fast.train(cfg)` with explicit and with
reduced data. Eager draws its normals with torch and trains on weights (`bench/peers.py`); of its
epochs `--epochs` are timed and scaled to all. At large d eta is scaled to keep eta d, on which the
speed of learning depends.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.synthetic import SignalNoiseData, axis_vector, draw_labels
from mmcl_fast.training import train

from .measure import single_thread
from .peers import eager_losses, textbook_losses


def torch_data(cfg: TrainConfig) -> SignalNoiseData:
    """Data and weights of a single-modal run as a script would make them; no test set."""
    noise = torch.randn(cfg.n, cfg.d)
    return SignalNoiseData(
        labels=draw_labels(cfg, "labels", cfg.n),
        mu=axis_vector(cfg.d, 0, cfg.mu_norm, cfg.dtype),
        nu=axis_vector(cfg.d, 0, cfg.nu_norm, cfg.dtype),
        noise=noise,
        augmented=noise + cfg.sigma_eps * torch.randn(cfg.n, cfg.d),
        weights=cfg.sigma_0 * torch.randn(cfg.m, cfg.d),
        test_labels=torch.ones(0),
        test_noise=torch.empty(0, cfg.d),
    )


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="bench.whole", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--d", type=int, default=200_000, help="dimension of the second table")
    parser.add_argument("--rounds", type=int, default=5, help="repeats of ours; eager has one")
    parser.add_argument("--epochs", type=int, default=200, help="epochs of eager to time")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    base = TrainConfig(device="cpu", evaluate_every=0)
    print(f"CPU ms of a single-modal run of {base.epochs} epochs, n={base.n} m={base.m}, with data")
    for d in (base.d, args.d):
        cfg = base.replace(d=d, eta=base.eta * base.d / d)
        reduced = cfg.replace(data="reduced")
        train(reduced)
        ours = median(cpu_s(lambda r=reduced: train(r)) for _ in range(4 * args.rounds))
        times = {"train(), reduced data": ours}
        times["train(), explicit data"] = median(
            cpu_s(lambda c=cfg: train(c)) for _ in range(args.rounds)
        )
        times["eager, tuned"] = eager_s(eager_losses, cfg, args.epochs)
        times["eager, textbook"] = eager_s(textbook_losses, cfg, args.epochs)
        for name, seconds in times.items():
            print(f"d={d:<8} {name:24}{1e3 * seconds:12.2f}{seconds / ours:10.1f} x reduced")
    return 0


__all__ = ["eager_s", "main", "torch_data"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())

"""Training runs of several processes, and what one process makes of the same settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from mmcl_fast import Run, TrainConfig
from mmcl_fast.distributed import train

PROCESS = Path("/proc/self/status")
BASE: dict[str, Any] = {
    "n": 30, "d": 50, "m": 11, "epochs": 12, "n_test": 20, "dtype": "float64",
    "evaluate_every": 4, "device": "cpu", "engine": "primal",
}  # fmt: skip


@dataclass(frozen=True)
class TrainCase:
    id: str
    why: str
    settings: dict[str, Any] = field(default_factory=dict)
    samples: tuple[int, ...] | None = (5, 17, 8)
    group: tuple[int, ...] = (0, 1, 2)
    repeat: bool = False

    @property
    def cfg(self) -> TrainConfig:
        return TrainConfig(**BASE | self.settings)


LARGE = {"sigma_0": 0.3, "eta": 1e-3}  # scores that tell samples apart
SGD = {"optimizer": "sgd", "batch_size": 7}
TRAIN_CASES = [
    TrainCase("single", "shares of three sizes", repeat=True),
    TrainCase("multi", "both directions", {"modality": "multi", "d_b": 53, "sigma_xi_b": 0.5},
              repeat=True),
    TrainCase("default_shares", "31 samples for three", {"n": 31}, samples=None),
    TrainCase("lone_sample", "a share without one of the labels", samples=(1, 28, 1)),
    TrainCase("streamed", "nobody holds a sample", {"data": "streamed", "augment": "per_epoch"}),
    TrainCase("fresh_views", "held samples, drawn views", {"augment": "per_epoch"}),
    TrainCase(
        "momentum_decay",
        "velocity and w(0) in every process",
        {"optimizer": "momentum", "weight_decay": 0.1, "modality": "multi", "eta": 0.002},
    ),
    TrainCase("adam_cubic", "no coefficients", {"optimizer": "adam", "eta": 1e-3, "q": 3}),
    TrainCase("pair", "ranks inside a group of two", samples=(11, 19), group=(2, 0)),
    TrainCase("alone", "a ring of one", {"modality": "multi"}, samples=(30,), group=(1,)),
    TrainCase("lone_multi", "keys of one label travel", {"modality": "multi", "q": 2, **LARGE},
              samples=(1, 1, 28)),
    TrainCase("tiny_tau", "exp of a score overflows", {"tau": 2e-4, "m": 3, **LARGE, "eta": 1e-6}),
    TrainCase("tiny_tau_multi", "the same in both directions",
              {"tau": 2e-4, "modality": "multi", **LARGE, "eta": 1e-6}),
    TrainCase("ood_probe", "every rank draws the samples of the head's fit",
              {"probe_on": "ood", "probe_samples": 15}),
    TrainCase("minibatches", "a rank without a sample of some", SGD, samples=(3, 18, 9)),
    TrainCase("minibatches_multi", "both directions, weights of a mean over the minibatch",
              {"modality": "multi", "data": "streamed", **SGD}, samples=(3, 18, 9), repeat=True),
    TrainCase("minibatches_fresh", "drawn views of some samples",
              {"augment": "per_epoch", **SGD}, samples=(9, 19, 2)),
]  # fmt: skip
# Features are most of what is held; without coefficients at the end, a step holds the most.
WIDE = TrainConfig(
    n=8000,
    d=64,
    m=1024,
    epochs=1,
    optimizer="adam",
    data="streamed",
    n_test=2,
    evaluate_every=0,
    device="cpu",
    engine="primal",
)
# Of four processes.
FOUR = [
    replace(case, samples=samples, group=(0, 1, 2, 3))
    for case in TRAIN_CASES
    for samples in ((4, 15, 1, 10),)
    if case.id in ("single", "multi", "tiny_tau", "lone_multi", "minibatches")
]
SINGLE_PRECISION = [
    TrainCase(
        f"float32_{modality}",
        "rounding of split sums",
        {"n": 90, "d": 400, "dtype": "float32", "modality": modality, "seed": seed},
        samples=(20, 45, 25),
    )
    for modality in ("single", "multi")
    for seed in range(3)
]
REFUSED: dict[str, Callable[[int], Run]] = {
    "settings": lambda rank: train(TrainConfig(**BASE | {"seed": int(rank == 1)})),
    "shares": lambda rank: train(TrainConfig(**BASE), samples=(10, 10, 10 + (rank == 1))),
    "few": lambda rank: train(TrainConfig(**BASE | {"n": 2, "data_seed": 1})),
    "reduced": lambda rank: train(TrainConfig(**BASE | {"data": "reduced"})),
    "orthogonal": lambda rank: train(TrainConfig(**BASE | {"data": "orthogonal"})),
    "engine": lambda rank: train(TrainConfig(**BASE | {"engine": "gram"})),
    "one rank's engine": lambda rank: train(
        TrainConfig(**BASE | {"precision": "tf32" if rank == 1 else "ieee", "engine": "primal"})
    ),
    "drawn": lambda rank: train(TrainConfig(**BASE | {"negatives_per_sample": 3})),
}


def tensors_of_run(run: Run) -> dict[str, Tensor]:
    """Everything a run holds, without NaN."""
    names = ("loss", "ood_accuracy", "signal", "noise", "gamma", "rho", "gamma_b", "rho_b")
    found = {
        name: x.nan_to_num(nan=-1.0) for name in names if (x := getattr(run, name)) is not None
    }
    for modality in ("a", "b") if run.config.is_multi else ("a",):
        found[f"weights_{modality}"] = run.weights(modality)
    return found


def peaks_of_wide_runs(group: dist.ProcessGroup, alone: dist.ProcessGroup) -> dict[str, int]:
    """Peak memory that runs of a group add in this process, which has not computed much yet."""
    size = dist.get_world_size(group)
    runs = {
        "small": (WIDE.replace(n=40, m=64), group),
        "share": (WIDE.replace(n=WIDE.n // size), alone),
        "step": (WIDE, group),
        "coefficients": (WIDE.replace(optimizer="gd"), group),
    }
    found = {}
    for name, (cfg, members) in runs.items():
        train(cfg, members)
        found[name] = peak_bytes()
    start = found.pop("small")
    return {name: peak - start for name, peak in found.items()}


def peak_bytes() -> int:
    """Of this process until now; not ru_maxrss, which it inherits from the one that started it."""
    lines = PROCESS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def trained(case: TrainCase, group: dist.ProcessGroup) -> dict[str, Tensor]:
    """A run of this process's group."""
    return tensors_of_run(train(case.cfg, group, samples=case.samples))

"""Training runs of several processes, and what one process makes of the same settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch import Tensor

from mmcl_fast import Run, TrainConfig
from mmcl_fast.distributed import train

BASE: dict[str, Any] = {
    "n": 30, "d": 50, "m": 12, "epochs": 12, "n_test": 20, "dtype": "float64",
    "evaluate_every": 4, "device": "cpu", "engine": "primal",
}  # fmt: skip


@dataclass(frozen=True)
class TrainCase:
    id: str
    why: str
    settings: dict[str, Any] = field(default_factory=dict)
    samples: tuple[int, ...] | None = (5, 17, 8)
    group: tuple[int, ...] = (0, 1, 2)

    @property
    def cfg(self) -> TrainConfig:
        return TrainConfig(**BASE | self.settings)


TRAIN_CASES = [
    TrainCase("single", "shares of three sizes"),
    TrainCase("multi", "both directions", {"modality": "multi", "d_b": 33, "sigma_xi_b": 0.5}),
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
    "sgd": lambda rank: train(TrainConfig(**BASE | {"optimizer": "sgd", "batch_size": 5})),
    "reduced": lambda rank: train(TrainConfig(**BASE | {"data": "reduced"})),
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


def trained(case: TrainCase, group: dist.ProcessGroup) -> dict[str, Tensor]:
    """A run of this process's group."""
    return tensors_of_run(train(case.cfg, group, samples=case.samples))

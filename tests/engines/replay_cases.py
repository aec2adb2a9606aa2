"""Runs whose epochs can be replayed, and what the same epochs are one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast import TrainConfig
from mmcl_fast.data import sample
from mmcl_fast.engines import EngineSpec, GramEngine, Measured
from mmcl_fast.engines.paper_loss import full_scores

SMALL: dict[str, Any] = {"n": 14, "d": 30, "m": 6, "n_test": 5, "sigma_0": 0.05}


@dataclass(frozen=True)
class Case:
    id: str
    why: str
    settings: dict[str, Any] = field(default_factory=dict)
    chunk: int | None = None

    def apply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rows of scores at a time."""
        if self.chunk:
            monkeypatch.setattr(full_scores, "CHUNK_SCORES", self.chunk * SMALL["n"])


CASES = [
    Case("single", "the paper's single-modal run"),
    Case("multi", "two passes, two sets of coefficients", {"modality": "multi"}),
    Case("quadratic", "activations in place", {"q": 2}),
    Case("cubic_multi", "act' has temporaries", {"q": 3, "modality": "multi"}),
    Case("momentum", "velocity is state", {"optimizer": "momentum"}),
    Case("decay", "a is state, and where z starts from changes", {"weight_decay": 0.1}),
    Case(
        "everything",
        "every option off its default",
        {
            "modality": "multi",
            "q": 2,
            "optimizer": "momentum",
            "weight_decay": 0.1,
            "negatives_per_sample": 3,
            "d_b": 20,
        },
    ),
    Case("drawn_negatives", "drawn by the host, once", {"negatives_per_sample": 3}),
    Case("chunks", "a ragged last chunk, as from n = 2,049 on", chunk=5),
]


def spec_of(runs: int = 1, device: str = "cpu", **settings: Any) -> EngineSpec:
    cfg = TrainConfig(**(SMALL | settings))
    configs = [cfg.replace(seed=seed) for seed in range(runs)]
    return EngineSpec(configs, [sample(c) for c in configs], torch.device(device))


def one_by_one(engine: GramEngine, epoch: int, count: int) -> Measured:
    """The contract of `train_epochs`."""
    found = []
    for t in range(epoch, epoch + count):
        signal, noise = engine.signal_and_noise()
        found.append((engine.train_epoch(t), signal, noise))
    return Measured(*(torch.stack(x, dim=1) for x in zip(*found, strict=True)))


def same(a: Measured, b: Measured) -> None:
    for name in ("loss", "signal", "noise"):
        equal_bits(getattr(a, name), getattr(b, name), name)


def equal_bits(a: Tensor, b: Tensor, name: str) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=name)


def same_state(a: GramEngine, b: GramEngine) -> None:
    assert a.state().keys() == b.state().keys()
    for name, x in a.state().items():
        equal_bits(x, b.state()[name], name)


def copied(engine: GramEngine) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in engine.state().items()}

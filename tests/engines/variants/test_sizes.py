"""Estimates of the cost of variants: memory against what is allocated, operations by columns."""

from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample_many
from mmcl_fast.data.signal_noise.synthetic import data_bytes
from mmcl_fast.engines import ENGINES, EngineSpec, core_seconds, flop, memory_bytes
from tests.engines.peak import Peak

BASE: dict[str, Any] = {"n": 200, "d": 210, "m": 40, "n_test": 2, "evaluate_every": 0}


@pytest.mark.parametrize(
    "settings",
    [
        {"negatives": "all"},
        {"stop_gradient": "none"},
        {"modality": "multi", "stop_gradient": "none", "pair_noise": 0.1, "similarity": "cosine"},
        {"modality": "multi", "mu_c_norm": 5.0},
        {"modality": "multi", "mu_c_norm": 5.0, "stop_gradient": "none", "pair_noise": 0.1},
        {"classes": 16, "spurious_norm": 1.0},
        {"objective": "logistic"},
        {"optimizer": "sgd", "batch_size": 50},
    ],
    ids=["all", "keys", "clip", "third", "third-clip", "classes", "logistic", "sgd"],
)
def test_memory_is_that_of_the_tensors(settings: dict[str, Any]) -> None:
    cfg = TrainConfig(**BASE | settings)
    spec = EngineSpec([cfg], sample_many([cfg]), torch.device("cpu"))
    with Peak() as peak:
        engine = ENGINES["gram"].build(spec)
        for epoch in range(2):
            engine.train_epoch(epoch)
    assert 0.7 < peak.bytes / (memory_bytes(cfg, "gram") - data_bytes(cfg)) < 1.1


def test_operations_follow_the_columns() -> None:
    """2 n + 1 columns where views carry a gradient, n + K with classes; minibatches: twice."""
    long = {"n": 1000, "d": 2000, "m": 50, "epochs": 10**4, "evaluate_every": 0}
    paper = TrainConfig(**long)

    def ratio(**settings: Any) -> float:
        return flop(paper.replace(**settings), "gram") / flop(paper, "gram")

    assert ratio(stop_gradient="none") == pytest.approx(2, rel=0.01)
    assert ratio(negatives="all", similarity="cosine", eta_tau=0.1) == 1
    assert ratio(classes=100) == pytest.approx(1.1 * 2.1 / 2, rel=0.01)
    assert ratio(optimizer="sgd", batch_size=10) == pytest.approx(2, rel=0.01)
    assert core_seconds(paper.replace(stop_gradient="none"), "gram") > 1.1 * core_seconds(
        paper, "gram"
    )

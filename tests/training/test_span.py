"""Weights rebuilt from coefficients are those that the reference trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig, train
from mmcl_fast.data import sample
from mmcl_fast.training.span import weights_in_span

BASE = TrainConfig(
    n=14, m=6, d=60, n_test=5, epochs=30, eta=0.05, evaluate_every=0, dtype="float64", device="cpu",
    engine="reference",
)  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {"weight_decay": 0.1},
    {"classes": 3, "optimizer": "momentum"},
    {"spurious_norm": 2.0, "pair_noise": 0.3},
    {"stop_gradient": "none", "view_scale": 0.5, "view_mask": 0.2},
    {"classes": 3, "spurious_norm": 2.0, "stop_gradient": "none", "weight_decay": 0.1},
    {"classes": 3, "spurious_b_norm": 2.0, "modality": "multi", "d_b": 31, "stop_gradient": "none"},
    {"mu_c_norm": 2.0, "d_c": 23, "spurious_c_norm": 1.0, "modality": "multi", "pair_noise": 0.3},
    {"objective": "logistic", "label_noise": 0.2, "label_noise_draw": "per_epoch"},
]


@pytest.mark.parametrize("settings", OPTIONS, ids=lambda s: "-".join(s))
def test_weights_in_the_span(settings: dict[str, Any]) -> None:
    run = train(BASE.replace(**settings))
    assert run._span is not None
    for k, modality in enumerate(run.modalities):
        data = sample(run.config)
        found = weights_in_span(run._span[k], data, k)
        start = (data.weights, data.weights_b, data.weights_c)[k]
        # Measured 3e-16; weights are of size 0.1 to 1.
        torch.testing.assert_close(found, run.weights(modality), rtol=0, atol=1e-14)
        assert start is not None
        assert (found - start).abs().max() > 1e-3

"""The reference engine of variants: the paper's model is one of them, and its span is complete."""

from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig
from mmcl_fast.data import sample
from mmcl_fast.engines import EngineSpec
from mmcl_fast.engines.reference_engine import ReferenceEngine
from mmcl_fast.engines.reference_variants import VariantReferenceEngine

SMALL: dict[str, Any] = {"n": 30, "d": 80, "m": 12, "n_test": 20, "dtype": "float64"}
# Measured 1.2e-15 at the most, after 20 epochs.
TOLERANCE = 1e-13


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"modality": "multi"},
        {"optimizer": "sgd", "batch_size": 7},
        {"q": 2, "sigma_0": 0.05, "weight_decay": 0.1},
        {"modality": "multi", "negatives_per_sample": 3},
    ],
    ids=["single", "multi", "minibatches", "quadratic", "drawn_negatives"],
)
def test_the_paper_s_model_is_a_variant(settings: dict[str, Any]) -> None:
    cfg = TrainConfig(**SMALL | settings)
    spec = EngineSpec([cfg], [sample(cfg)], torch.device("cpu"))
    paper, variant = ReferenceEngine(spec), VariantReferenceEngine(spec)
    for epoch in range(20):
        losses = paper.train_epoch(epoch), variant.train_epoch(epoch)
        torch.testing.assert_close(*losses, rtol=0, atol=TOLERANCE)
    close = {"rtol": 0, "atol": TOLERANCE}
    torch.testing.assert_close(variant.weights(), paper.weights(), **close)
    torch.testing.assert_close(variant.embeddings().test, paper.embeddings().test, **close)
    found, expected = variant.coefficients(), paper.coefficients()
    assert found
    assert expected
    for mine, theirs in zip(found, expected, strict=True):
        for name in ("initial", "mu", "noise"):
            torch.testing.assert_close(getattr(mine, name), getattr(theirs, name), **close)

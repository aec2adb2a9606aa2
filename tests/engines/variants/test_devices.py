"""Data drawn on the CPU, trained on another device: one that holds no values refuses to mix."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig
from mmcl_fast.data import sample
from mmcl_fast.engines import Engine, EngineSpec
from mmcl_fast.engines.reference_variants import VariantReferenceEngine
from mmcl_fast.engines.variants.engine import VariantGramEngine
from mmcl_fast.training.recorder import Recorder

SMALL: dict[str, Any] = {
    "n": 10, "d": 20, "m": 4, "n_test": 5, "probe_on": "ood", "probe_samples": 8,
}  # fmt: skip
CASES: list[dict[str, Any]] = [
    {"spurious_norm": 1.0, "pair_noise": 0.3, "augment": "per_epoch", "view_mask": 0.2},
    {"classes": 3, "modality": "multi", "stop_gradient": "none", "similarity": "cosine"},
    {"objective": "logistic", "label_noise": 0.2, "label_noise_draw": "per_epoch"},
    {"optimizer": "sgd", "batch_size": 3, "negatives_per_sample": 2, "spurious_norm": 1.0},
]
META = torch.device("meta")


@pytest.mark.parametrize("kind", [VariantReferenceEngine, VariantGramEngine])
@pytest.mark.parametrize("settings", CASES, ids=lambda s: "-".join(s))
def test_all_of_an_engine_is_on_its_device(kind: type[Engine], settings: dict[str, Any]) -> None:
    cfg = TrainConfig(**SMALL | settings, seed=3, device="cpu")
    data = sample(cfg)
    engine = kind(EngineSpec([cfg], [data], META))  # type: ignore[call-arg]
    for epoch in range(2):
        engine.train_epoch(epoch)
    coefficients, found = engine.coefficients(), engine.embeddings()
    assert coefficients
    assert found.probe is not None
    terms = Recorder([cfg], [data]).terms(0, coefficients[0])
    results = (engine.loss(2), *engine.signal_and_noise(), found.train, found.test, found.probe)
    assert {x.device for x in (*results, *terms.values())} == {META}

"""The benchmark of what is left to the engine gram: its peer is right, no wrong curve is timed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmcl_fast.bench.cpu import gram_variants
from mmcl_fast.bench.peers.variant_descent import variant_losses
from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.own_arrays import as_data
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.engines import ENGINES, EngineSpec

SMALL = {"n": 27, "d": 50, "m": 6, "epochs": 4, "sigma_0": 0.05}
OTHERS = {
    "everything of two modalities": {
        "modality": "multi", "negatives": "all", "pair_noise": 0.3, "stop_gradient": "none",
        "similarity": "cosine", "eta_tau": 0.1, "classes": 3, "spurious_norm": 2.0, "q": 2,
    },
    "everything of one": {
        "negatives": "all", "stop_gradient": "none", "classes": 3, "view_scale": 0.7,
        "spurious_norm": 2.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", [*gram_variants.CASES, *OTHERS])
def test_the_peer_is_the_reference(name: str) -> None:
    base = gram_variants.CASES.get(name, TrainConfig(device="cpu"))
    cfg = base.replace(**{**SMALL, **OTHERS.get(name, {})}, dtype="float64")
    data = as_data(cfg, sample(cfg))
    engine = ENGINES["reference"].build(EngineSpec([cfg], [data], torch.device("cpu")))
    exact = torch.cat([engine.train_epoch(t) for t in range(cfg.epochs)])
    torch.testing.assert_close(variant_losses(cfg, data), exact, rtol=1e-11, atol=1e-12)
    assert exact[-1] != exact[0]


def test_rows_and_the_gate(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    cfg = gram_variants.CASES["label-noise gradient descent"].replace(**SMALL)
    rows = gram_variants.measure("x", cfg, batch=3, rounds=1)
    assert rows is not None
    assert [row["variant"] for row in rows] == [gram_variants.EAGER, gram_variants.GRAM]
    assert rows[0]["times_eager"] == 1.0
    assert rows[1]["settings"]["runs"] == 3

    def wrong(*given: object) -> Tensor:
        return 1.01 * variant_losses(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(gram_variants, "variant_losses", wrong)
    assert gram_variants.measure("x", cfg, batch=2, rounds=1) is None
    assert "x: eager: losses are wrong" in capsys.readouterr().err

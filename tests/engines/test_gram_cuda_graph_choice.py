"""Which runs of the gram engine are replayed, and the memory that it takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig
from mmcl_fast.engines import ENGINES, EngineSpec, GramEngine, MultiEpochEngine, cost, memory_bytes
from mmcl_fast.engines.gram_cuda_graph import (
    MAX_FLOP,
    ReplayedGramEngine,
    step_flop,
    why_not_replayed,
)
from mmcl_fast.engines.paper_loss import full_scores

from .peak import Peak
from .replay_cases import CASES, Case, spec_of

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"augment": "per_epoch"}, "augment per_epoch changes the inner products"),
    (
        {"negatives_per_sample": 3, "negatives_draw": "per_epoch"},
        "negatives_draw per_epoch changes the negatives",
    ),
    ({"n": 20_000, "m": 500}, "an epoch of 1.6e\\+12 flop: beyond 1e\\+11"),
]


@pytest.mark.parametrize(("settings", "reason"), REFUSED, ids=lambda x: str(x)[:25])
def test_what_differs_by_epoch_or_is_large_is_not_replayed(
    settings: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = TrainConfig(**settings)
    found = why_not_replayed(cfg, "cuda")
    assert found is not None
    assert re.search(reason, found)
    assert built(cfg, "cuda", monkeypatch) is GramEngine


def test_what_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = TrainConfig(n=2048, m=256)
    for case in CASES:
        assert built(cfg.replace(**case.settings), "cuda", monkeypatch) is ReplayedGramEngine
        assert built(cfg.replace(**case.settings), "cpu", monkeypatch) is GramEngine
    assert why_not_replayed(cfg, "cpu") == "device cpu: expected cuda"
    runs = int(MAX_FLOP / step_flop(cfg))
    assert why_not_replayed(cfg, "cuda", runs) is None
    assert why_not_replayed(cfg, "cuda", runs + 1) is not None
    assert built(cfg, "cuda", monkeypatch, runs + 1) is GramEngine


def built(cfg: TrainConfig, device: str, monkeypatch: pytest.MonkeyPatch, runs: int = 1) -> type:
    """The class of the engine of some runs; nothing is computed."""
    monkeypatch.setattr(GramEngine, "__init__", lambda *_: None)
    monkeypatch.setattr(ReplayedGramEngine, "__init__", lambda *_: None)
    data: Sequence[Any] = [None] * runs
    return type(ENGINES["gram"].build(EngineSpec([cfg] * runs, data, torch.device(device))))


def test_only_an_engine_that_replays_offers_stretches() -> None:
    spec = spec_of()
    assert isinstance(ReplayedGramEngine(spec), MultiEpochEngine)
    assert not isinstance(ENGINES["gram"].build(spec), MultiEpochEngine)


def test_memory_counts_what_a_graph_keeps() -> None:
    cfg = TrainConfig(n=2048, m=256, data="reduced", evaluate_every=0)
    on_gpu = cfg.replace(device="cuda")
    more = memory_bytes(on_gpu, "gram") - memory_bytes(cfg, "gram")
    assert more >= cost.POOL_BYTES + 4 * 4 * cfg.n * cfg.m  # what an epoch allocates, and cuBLAS
    fresh = {"negatives_per_sample": 3, "negatives_draw": "per_epoch"}
    for settings in (fresh, {"n": 20_000, "m": 500}):
        launched = on_gpu.replace(**settings)
        assert memory_bytes(launched, "gram") == memory_bytes(
            launched.replace(device="cpu"), "gram"
        )
    assert memory_bytes(on_gpu, "primal") - memory_bytes(cfg, "primal") < more


@pytest.mark.parametrize("chunk", [None, 40], ids=["whole", "chunks"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_an_epoch_allocates_what_is_predicted(
    case: Case, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"n": 90, "m": 40}
    if chunk:
        monkeypatch.setattr(full_scores, "CHUNK_SCORES", chunk * size["n"])
    spec = spec_of(**(size | case.settings))
    ours = ReplayedGramEngine(spec, lambda step: step)
    ours.train_epochs(0, 1)
    with torch.inference_mode(), Peak() as peak:
        ours._epoch()
    predicted = 4 * cost._step_elements(spec.cfg)
    assert 0.4 * predicted < peak.bytes <= predicted

"""What the step `gram` of `python -m bench.gpu` times, at sizes of a test on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl_fast.bench.gpu import gram
from mmcl_fast.bench.gpu.runner import rows_of
from mmcl_fast.bench.gpu.timing import Report
from mmcl_fast.bench.peers.training import eager_losses
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import EngineSpec
from mmcl_fast.engines.gram_cuda_graph import ReplayedGramEngine

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sizes on the CPU, where a replay is the step itself."""

    def build(name: str, cfg: Any, data: Sequence[SignalNoiseData], _: str) -> ReplayedGramEngine:
        assert name == "gram"
        spec = EngineSpec([cfg] * len(data), data, torch.device("cpu"))
        return ReplayedGramEngine(spec, lambda step: step)

    monkeypatch.setattr(gram, "SIZES", ((12, 5), (20, 6)))
    monkeypatch.setattr(gram, "SIDE_BY_SIDE", 3)
    monkeypatch.setattr(gram, "EPOCHS", 6)
    monkeypatch.setattr(gram, "CUDA", torch.device("cpu"))
    monkeypatch.setattr(gram, "engine_of", build)


def timed(_: Report, call: Callable[[], object], **__: object) -> Row:
    call()
    return {"ms": {"p50": 3.0}, "enqueue_ms": 2.0}


def rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, list[Row]]:
    monkeypatch.setattr(Report, "timed", timed)
    report = Report(path)
    gram.gram(report)
    return report.failed, list(rows_of(path))


def test_every_size_is_timed_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed, found = rows(tmp_path / "rows", monkeypatch)
    assert not failed
    sizes = [(12, 1), (12, 3), (20, 1)]
    for variant in (gram.REPLAYED, gram.LAUNCHED):
        mine = [row for row in found if row["variant"] == variant]
        assert [(r["settings"]["n"], r["settings"]["runs"]) for r in mine] == sizes
        assert all(row["ms_per_epoch"] == 0.5 for row in mine)
        assert all(("ok" in row) == (variant == gram.REPLAYED) for row in mine)
    assert [r["settings"]["n"] for r in found if r["variant"] == gram.SCAN] == [12, 12, 20]


def test_what_compiles_is_not_begun_shortly_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Report, "timed", timed)
    monkeypatch.setattr(gram, "SCAN_S", 1000.0)
    gram.gram(Report(tmp_path / "rows", until=time.monotonic() + 900.0))
    found = list(rows_of(tmp_path / "rows"))
    assert sum("ms" in row for row in found) == 6
    reasons = [row["skipped"] for row in found if row["variant"] == gram.SCAN]
    assert reasons == ["no time was left"] * 3


@pytest.mark.parametrize("wrong", ["loss", "signal", "noise", "state"])
def test_other_bits_are_not_timed_and_fail_the_step(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, state = ReplayedGramEngine.train_epochs, ReplayedGramEngine.state

    def trained(engine: ReplayedGramEngine, epoch: int, count: int) -> Any:
        measured = train(engine, epoch, count)
        if wrong != "state":
            getattr(measured, wrong)[-1, -1] += 1e-6
        return measured

    def stated(engine: ReplayedGramEngine) -> dict[str, torch.Tensor]:
        return {k: x + 1e-9 if wrong == "state" else x for k, x in state(engine).items()}

    monkeypatch.setattr(ReplayedGramEngine, "train_epochs", trained)
    monkeypatch.setattr(ReplayedGramEngine, "state", stated)
    failed, found = rows(tmp_path / "rows", monkeypatch)
    assert failed
    mine = [row for row in found if row["variant"] == gram.REPLAYED]
    assert len(mine) == 3
    assert not any(row["ok"] or "ms" in row for row in mine)


@pytest.mark.parametrize("case", [0, 1], ids=["alone", "side by side"])
def test_the_scan_trains_the_same_runs(case: int) -> None:
    pytest.importorskip("jax")
    cfg, data = list(gram.cases())[case]
    found = gram.scan(cfg, data)().reshape(len(data), -1)
    for mine, x in zip(found, data, strict=True):
        torch.testing.assert_close(mine, eager_losses(cfg, x))


@pytest.mark.parametrize("case", [0, 1], ids=["alone", "side by side"])
def test_the_scan_is_not_in_tf32(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    jax = pytest.importorskip("jax")
    seen = []

    def losses(*_: object) -> Callable[[], None]:
        return lambda: seen.append(jax.config.jax_default_matmul_precision)

    for name in ("jax_losses", "jax_vmap_losses"):
        monkeypatch.setattr(gram.training, name, losses)
    gram.scan(*list(gram.cases())[case])()
    assert seen == ["highest"]

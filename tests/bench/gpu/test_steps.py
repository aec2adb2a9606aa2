"""What `python -m bench.gpu` times and compares with, at sizes of a test on a CPU."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig, losses
from mmcl_fast.bench.gpu import long_features, primal, timing, trajectory, typical
from mmcl_fast.bench.gpu import loss as gpu_loss
from mmcl_fast.bench.gpu import sweep as gpu_sweep
from mmcl_fast.bench.gpu.runner import rows_of
from mmcl_fast.bench.peers.training import eager_losses
from mmcl_fast.losses.triton_backend.policy import current
from mmcl_fast.sweep import make_plan, run_sweep

MODALITIES = ("single", "multi")


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_vmapped_peer_trains_the_same_run(
    modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectory, "CUDA", torch.device("cpu"))
    cfg = trajectory.PAPER.replace(n=12, m=5, d=30, epochs=4, modality=modality, device="cpu")
    data = trajectory.samples(cfg, 2)
    found = trajectory._vmapped(cfg, data)()
    for mine, x in zip(found, data, strict=True):
        torch.testing.assert_close(mine, eager_losses(cfg, x))


@pytest.mark.parametrize("loss", gpu_loss.VARIANTS)
def test_losses_and_peers_are_the_same_function(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_loss, "CUDA", torch.device("cpu"))
    monkeypatch.setattr(timing, "CUDA", torch.device("cpu"))
    native = losses.info_nce
    monkeypatch.setattr(losses, "info_nce", lambda *x, backend, **options: native(*x, **options))
    inputs = gpu_loss.inputs_of(gpu_loss.Case(loss, 60, 7), torch.float32)
    variants = dict(gpu_loss.VARIANTS[loss])
    if not hasattr(torch.nn.functional, "linear_cross_entropy"):
        variants.pop(gpu_loss.LINEAR, None)
    assert len(variants) > 1
    want = gpu_loss.gradients(variants[gpu_loss.DENSE], inputs)
    for variant in variants.values():
        found = gpu_loss.gradients(variant, inputs)
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)


def test_the_gate_of_the_weights_passes_what_is_right_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = primal.GATE.replace(n=256, d=64, m=32)
    right = timing.Report(tmp_path / "right")
    primal.gate_primal(right, small, "cpu")
    assert not right.failed
    assert len(list(rows_of(tmp_path / "right"))) == 8

    def turned(cfg: Any, data: Any, device: str) -> Any:
        found, update = trained(cfg, data, device)
        return found, update if cfg.dtype == "float64" else [-x for x in update]

    trained = primal.trained
    monkeypatch.setattr(primal, "trained", turned)
    wrong = timing.Report(tmp_path / "wrong")
    primal.gate_primal(wrong, small, "cpu")
    assert wrong.failed
    assert not any(row["ok"] for row in rows_of(tmp_path / "wrong"))


@pytest.mark.parametrize("modality", MODALITIES)
def test_variants_of_the_step_have_the_same_loss(
    modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectory, "CUDA", torch.device("cpu"))
    build = partial(trajectory.engine_of, device="cpu")
    monkeypatch.setattr(primal, "engine_of", lambda name, cfg, x, _: build(name, cfg, x))
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    cfg = primal.GATE.replace(n=256, d=64, m=32, epochs=1, modality=modality)
    data = primal.sample(cfg)
    values = {name: float(make()()) for name, make in primal.variants(cfg, data).items()}
    assert len(values) == 6
    want = values["eager, tuned, float32"]
    for name, value in values.items():
        assert value == pytest.approx(want, rel=2e-2 if "bf16" in name else 1e-5), name


def test_the_host_is_found_to_be_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_peak_mib", lambda call: 1.0)
    report = timing.Report(tmp_path / "rows")
    for host, bound in (([1.0, 2.0], False), ([9.0, 9.5], True)):
        monkeypatch.setattr(timing, "_repeated", lambda *_, host=host: ([10.0, 10.0], host))
        row = report.timed(lambda: None)
        assert row["host_bound"] is bound
        assert row["ms"]["p50"] == 10.0


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses on the CPU, by the torch backend, as this process does not interpret kernels."""
    for module in (gpu_loss, timing):
        monkeypatch.setattr(module, "CUDA", torch.device("cpu"))
    native = losses.info_nce
    monkeypatch.setattr(losses, "info_nce", lambda *x, backend, **options: native(*x, **options))
    monkeypatch.setattr(timing.Report, "timed", lambda _, call, **__: {"ms": {"p50": call() and 1}})
    monkeypatch.setattr(typical, "captured", lambda call: call)
    small = gpu_loss.Case(gpu_loss.SYMMETRIC, 40, 16)
    for module in (typical, long_features):
        monkeypatch.setattr(module, "CASES", (small,))


def test_every_typical_size_has_all_variants_ours_compared_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_cpu: None
) -> None:
    monkeypatch.setattr(typical, "compiled", lambda f, **_: f)
    report = timing.Report(tmp_path / "rows")
    typical.typical(report)
    rows = {row["variant"]: row for row in rows_of(tmp_path / "rows")}
    dense = {"dense", "dense, captured", "dense, compiled"}
    ours = {"mmcl_fast", "mmcl_fast, small batch", "mmcl_fast, small batch, captured"}
    assert rows.keys() == dense | ours
    assert all("ms" in row and ("ok" in row) == (name in ours) for name, row in rows.items())
    assert not report.failed


@pytest.mark.parametrize("step", ["typical", "long"])
def test_what_is_wrong_is_not_timed(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_cpu: None
) -> None:
    asked: list[bool] = []

    def shifted(x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        right = losses.info_nce(x, y, temperature=1 / scale, symmetric=True, backend="torch")
        policy = current()
        wrong = policy.small_batch or policy.pipelined
        asked.append(wrong)
        return right * (1.001 if wrong else 1.0)

    variants = {**gpu_loss.VARIANTS[gpu_loss.SYMMETRIC], gpu_loss.OURS: shifted}
    for module in (gpu_loss, typical, long_features):
        monkeypatch.setattr(module, "VARIANTS", {gpu_loss.SYMMETRIC: variants})
    monkeypatch.setattr(typical, "compiled", lambda f, **_: f)
    report = timing.Report(tmp_path / "rows")
    {"typical": typical.typical, "long": long_features.long}[step](report)
    rows = list(rows_of(tmp_path / "rows"))
    prepared = [r for r in rows if r["variant"].startswith("mmcl_fast,")]
    assert prepared
    assert not any(row["ok"] or "ms" in row for row in prepared)
    assert all("ms" in row for row in rows if row["variant"] == "mmcl_fast")
    assert report.failed
    assert {*asked} == {True, False}


@pytest.mark.process
def test_rows_of_a_sweep_that_are_no_single_runs_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = trajectory.PAPER.replace(
        n=8, m=3, d=20, epochs=2, n_test=4, evaluate_every=1, device="cpu"
    )
    monkeypatch.setattr(gpu_sweep, "SETTINGS", cfg)
    monkeypatch.setattr(gpu_sweep, "CHECKED", 2)

    def found(stored: TrainConfig) -> bool:
        def computed(runs: int, workers: int, folder: str) -> None:
            run_sweep(make_plan(stored, seeds=runs), folder)

        monkeypatch.setattr(gpu_sweep, "_command", computed)
        report = timing.Report(tmp_path / "rows")
        gpu_sweep.gate_sweep(report)
        return not report.failed

    assert found(cfg)
    assert not found(cfg.replace(eta=cfg.eta * 1.5))


def test_a_sweep_is_timed_beyond_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sweep, "RUNS", (10, 110))
    monkeypatch.setattr(gpu_sweep, "WORKERS", (1,))
    times = {10: 3.0, 110: 5.0}
    monkeypatch.setattr(gpu_sweep, "_timed", lambda runs, _: {"seconds": times[runs]})
    report = timing.Report(tmp_path / "rows")
    gpu_sweep.sweep(report)
    last = list(rows_of(tmp_path / "rows"))[-1]
    assert (last["settings"]["runs"], last["runs_per_s"]) == (100, 50.0)

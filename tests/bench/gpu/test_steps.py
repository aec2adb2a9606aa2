"""What `python -m bench.gpu` times and compares with, at sizes of a test on a CPU."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl_fast import losses
from mmcl_fast.bench.gpu import loss as gpu_loss
from mmcl_fast.bench.gpu import primal, timing, trajectory
from mmcl_fast.bench.gpu.runner import rows_of
from mmcl_fast.bench.peers.training import eager_losses

MODALITIES = ("single", "multi")


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_vmapped_peer_trains_the_same_run(
    modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "cuda", lambda x: x)
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
    monkeypatch.setattr(torch.Tensor, "cuda", lambda x: x)
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

"""Coefficients that a run has are all of its weights: the paper's (11), and those of variants."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcl_fast import ConfigError, Run, TrainConfig, train
from mmcl_fast.cli.command_line import run as mmcl
from mmcl_fast.data import sample
from mmcl_fast.training.decomposition import FIELDS

BASE = TrainConfig(
    n=14, m=6, d=60, n_test=5, epochs=20, eta=0.05, evaluate_every=0, dtype="float64", device="cpu",
    engine="gram",
)  # fmt: skip
SINGLE, MULTI = {"modality": "single"}, {"modality": "multi", "d_b": 41, "mu_b_norm": 4.0}
CASES: list[dict[str, Any]] = [
    modality | spurious | classes | gradients
    for modality, spurious, classes, gradients in product(
        (SINGLE, MULTI),
        ({}, {"spurious_norm": 2.0, "spurious_correlation": 0.5}),
        ({}, {"classes": 3}),
        ({}, {"stop_gradient": "none"}),
    )
]
for _case in CASES:
    if _case["modality"] == "multi" and "spurious_norm" in _case:
        _case["spurious_b_norm"] = 3.0
CASES.append({"classes": 3, "spurious_norm": 2.0, "stop_gradient": "none", "weight_decay": 0.5})
_THIRD = {"mu_c_norm": 3.0, "d_c": 35, "spurious_c_norm": 1.5}
CASES.append(MULTI | _THIRD | {"spurious_norm": 2.0, "spurious_b_norm": 3.0})
TINY = BASE.replace(epochs=6, spurious_norm=2.0, stop_gradient="none", coefficients_every=2)


def _rebuilt(run: Run, suffix: str) -> Tensor:
    """Weights by the public fields of a run and the data that its settings say, [m, d]."""
    data = sample(run.config)
    decay = (1 - run.config.eta * run.config.weight_decay) ** run.config.epochs
    weights = decay * getattr(data, f"weights{suffix}")
    terms = {"gamma": "mu", "rho": "noise", "gamma_spurious": "spurious"}
    terms |= {} if suffix else {"rho_views": "augmented"}
    for symbol, name in terms.items():
        if (coefficients := getattr(run, f"{symbol}{suffix}")) is None:
            continue
        vectors = torch.atleast_2d(getattr(data, f"{name}{suffix}"))
        unit = vectors / vectors.square().sum(1, keepdim=True)
        weights += coefficients.reshape(len(weights), -1) @ unit
    return weights


@pytest.mark.parametrize("settings", CASES, ids=lambda s: "-".join(s))
def test_a_run_alone_has_its_weights(settings: dict[str, Any]) -> None:
    cfg = BASE.replace(**settings)
    run, exact = train(cfg), train(cfg.replace(engine="reference"))
    start = sample(cfg)
    assert (run.gamma_spurious is not None) == cfg.has_spurious
    assert (run.rho_views is not None) == (cfg.trains_keys and not cfg.is_multi)
    for modality, suffix in zip(run.modalities, ("", "_b", "_c"), strict=False):
        trained = exact.weights(modality)
        # Measured 4e-16 at the most; weights move by 0.15 and more.
        torch.testing.assert_close(_rebuilt(run, suffix), trained, rtol=0, atol=1e-10)
        assert (trained - getattr(start, f"weights{suffix}")).abs().max() > 0.01, "premise"
        for symbol in ("gamma", "rho", "gamma_spurious"):
            if (value := getattr(run, f"{symbol}{suffix}")) is not None:
                assert value.abs().max() > 1e-3, "premise: every term counts"
    if run.rho_views is not None:
        assert run.rho_views.abs().max() > 1e-3, "premise"


def test_stored_epochs_are_those_of_a_shorter_run() -> None:
    stopped = train(TINY, on_epoch=lambda info: "stop" if info.epoch == 3 else None)
    shorter = train(TINY.replace(epochs=3))
    assert stopped.coefficient_epochs == shorter.coefficient_epochs == [0, 2, 3]
    for name in ("gamma_spurious", "rho_views"):
        for field in (name, f"{name}_curve"):
            assert torch.equal(getattr(stopped, field), getattr(shorter, field)), field
        assert torch.equal(getattr(shorter, f"{name}_curve")[-1], getattr(shorter, name))


def test_they_survive_a_resume(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    train(TINY.replace(epochs=4), checkpoint=file, checkpoint_every=4)
    first: list[int] = []
    resumed = train(TINY, on_epoch=lambda info: first.append(info.epoch), checkpoint=file)
    assert first[0] == 4
    whole = train(TINY)
    for name in ("gamma_spurious_curve", "rho_views_curve", "gamma_spurious", "rho_views"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name)), name


def test_a_callback_sees_them() -> None:
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def look(info: Any) -> None:
        seen[info.epoch] = info.gamma_spurious()[0].clone(), info.runs[0].rho_views().clone()

    run = train(TINY, on_epoch=look)
    for k, epoch in enumerate(run.coefficient_epochs):
        assert torch.equal(seen[epoch][0], run.gamma_spurious_curve[k])
        assert torch.equal(seen[epoch][1], run.rho_views_curve[k])
    with pytest.raises(ConfigError, match=r"gamma_spurious: expected a spurious signal \(spuri"):
        train(BASE, on_epoch=lambda info: info.gamma_spurious())
    with pytest.raises(ConfigError, match="rho_views: expected views that carry gradients"):
        train(BASE, on_epoch=lambda info: info.rho_views())


def test_they_are_in_files_and_tables(tmp_path: Path) -> None:
    pytest.importorskip("xarray")
    run = train(TINY)
    cube = Run.load(run.save(tmp_path / "run.safetensors")).to_xarray()
    assert cube.gamma_spurious.dims == ("neuron",)
    assert cube.rho_views_curve.dims == ("coefficient_epoch", "neuron", "sample")
    np.testing.assert_array_equal(cube.rho_views, run.rho_views)
    flags = ["--n", "14", "--m", "4", "--d", "60", "--epochs", "2", "--device", "cpu"]
    flags += ["--spurious-norm", "2", "--stop-gradient", "none", "--coefficients-every", "1"]
    assert mmcl(["train", *flags, "--out", str(tmp_path / "run")]) == 0
    with np.load(tmp_path / "run" / "curves.npz") as found:
        assert found["gamma_spurious"].shape == (4,)
        assert found["rho_views_curve"].shape == (3, 4, 14)
        assert math.isfinite(found["rho_views_curve"].sum())


def test_every_field_of_a_run_is_listed() -> None:
    """What `FIELDS` lacks is in no file of `mmcl train` and in no dataset."""
    curves = {name for name in Run.__dataclass_fields__ if name.endswith("_curve")}
    assert curves == {f"{name}_curve" for name in FIELDS}
    assert FIELDS.keys() <= Run.__dataclass_fields__.keys()

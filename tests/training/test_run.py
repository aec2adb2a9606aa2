"""A run in files, tables and a line: what is written is read back, with what made it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmcl_fast import ConfigError, OutputError, Run, TrainConfig, __version__, train
from mmcl_fast.data import sample
from mmcl_fast.environment import source_commit
from mmcl_fast.training import run_file

TINY = TrainConfig(n=20, d=50, m=6, n_test=10, epochs=6, evaluate_every=4, device="cpu")
RUNS = {
    "multi": lambda: train(TINY.replace(modality="multi", coefficients_every=2)),
    "reduced": lambda: train(TINY.replace(d=400, data="reduced")),
    "adam": lambda: train(TINY.replace(optimizer="adam", eta=1e-3, seed=2**64 - 1)),
    "diverged": lambda: train(TINY.replace(q=3, eta=1e3, sigma_0=1.0, epochs=40)),
    "stopped": lambda: train(
        TINY,
        on_epoch=lambda info: "stop" if info.epoch == 3 else None,
        metrics={"size": lambda state: state.weights().norm()},
    ),
    "variant": lambda: train(
        TINY.replace(
            eta_tau=0.1, classes=3, spurious_norm=2.0, coefficients_every=2, evaluate_every=0
        )
    ),
    "own data": lambda: train(TINY, data={"noise": 2 * sample(TINY).noise, "mu": np.ones(50)}),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_is_read_back(kind: str, tmp_path: Path) -> None:
    run = RUNS[kind]()
    path = run.save(tmp_path / "run.safetensors")
    again = Run.load(str(path))
    assert again.config == run.config
    for name, value in vars(run).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(again, name).nan_to_num(-1), value.nan_to_num(-1)), name
        elif not name.startswith("_") and name != "metrics":
            assert getattr(again, name) == value, name
    assert again.metrics.keys() == run.metrics.keys()
    for name, curve in run.metrics.items():
        assert torch.equal(again.metrics[name], curve)
    if run.has_weights:
        for modality in run.modalities:
            ours, theirs = (x.weights(modality).nan_to_num(-1) for x in (again, run))
            assert torch.equal(ours, theirs)
    else:
        with pytest.raises(ConfigError, match="weights in R\\^d do not exist"):
            again.weights()
    assert repr(again) == repr(run)
    again.save(tmp_path / "again.safetensors")
    assert Run.load(tmp_path / "again.safetensors").to_xarray().identical(run.to_xarray())
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_keeps_what_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xarray")
    monkeypatch.setattr(run_file, "environment", lambda device: {"mmcl_fast": "0.0.9"})
    monkeypatch.setattr(run_file, "source_commit", lambda: "abc")
    train(TINY).save(tmp_path / "run")
    monkeypatch.undo()
    made = Run.load(tmp_path / "run").to_xarray().attrs
    assert (made["mmcl_fast"], made["commit"]) == ("0.0.9", "abc")


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x"
    with pytest.raises(OutputError, match=r"run: expected a readable file of Run\.save, got"):
        Run.load(file)
    file.write_bytes(b"not one")
    with pytest.raises(OutputError, match="x: expected an undamaged file, got"):
        Run.load(file)
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(OutputError, match="expected a file of format mmcl-run-1, got None in"):
        Run.load(file)
    with pytest.raises(OutputError, match="cannot be written"):
        train(TINY).save(tmp_path / "nowhere" / "x")


def test_a_table_of_curves() -> None:
    pytest.importorskip("pandas")
    run = train(TINY, metrics={"epoch_squared": lambda state: state.epoch**2})
    frame = run.to_pandas()
    assert frame.index.name == "epoch"
    assert list(frame) == ["loss", "ood_accuracy", "signal", "noise", "epoch_squared"]
    assert frame.loss.tolist() == run.loss.tolist()
    assert frame.epoch_squared.tolist() == [float(t**2) for t in range(7)]
    assert frame.ood_accuracy.isna().tolist() == run.ood_accuracy.isnan().tolist()


def test_a_dataset_says_what_made_it() -> None:
    xr = pytest.importorskip("xarray")
    run = RUNS["multi"]()
    cube = run.to_xarray()
    assert isinstance(cube, xr.Dataset)
    assert cube.rho_b_curve.dims == ("coefficient_epoch", "neuron", "sample")
    assert cube.coefficient_epoch.values.tolist() == [0, 2, 4, 6]
    np.testing.assert_array_equal(cube.gamma, run.gamma)
    stated = {name: value for name, value in run.config.to_dict().items() if value is not None}
    assert cube.attrs == stated | {
        "status": "finished", "mmcl_fast": __version__, "commit": source_commit() or "",
    }  # fmt: skip
    assert RUNS["adam"]().to_xarray().attrs["seed"] == str(2**64 - 1), "beyond netCDF's integers"


def test_a_learned_temperature_and_classes_are_in_tables() -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("xarray")
    run = RUNS["variant"]()
    assert run.tau is not None
    cube = run.to_xarray()
    assert cube.gamma.dims == ("neuron", "label")
    assert cube.gamma_curve.dims == ("coefficient_epoch", "neuron", "label")
    np.testing.assert_array_equal(cube.gamma, run.gamma)
    np.testing.assert_array_equal(cube.tau, run.tau)
    assert run.to_pandas().tau.tolist() == run.tau.tolist()
    assert run.final()["tau"] == run.tau[-1].item() < run.config.tau_value


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmcl_fast import BackendUnavailableError

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'mmcl-fast\[pandas\]'"):
        train(TINY).to_pandas()


def test_a_run_in_a_line() -> None:
    run = RUNS["stopped"]()
    line = repr(run)
    assert line.startswith("Run(single-modal, n=20, d=50, m=6, seed 0, engine native: stopped at")
    assert "epoch 3; loss " in line
    assert len(line) < 200
    assert "diverged at epoch" in repr(RUNS["diverged"]())
    page = run._repr_html_()
    assert page.count("<tr>") == 6
    assert "epoch 3" in page
    assert len(repr(sample(TINY))) < 200


def test_a_step_of_the_temperature_is_a_cause_too() -> None:
    cfg = TrainConfig(n=20, d=30, m=4, epochs=5, similarity="cosine", eta_tau=1e6, n_test=10)
    run = train(cfg)
    assert run.cause
    assert "tau = 0.1, or eta_tau = 1e+06" in run.cause


@pytest.mark.parametrize("engine", ["native", "gram", "reference"])
def test_a_run_of_an_infinite_temperature_diverged(engine: str) -> None:
    # The first step of log(1 / tau) is downward, to exp(-inf); scores are then 0 for ever.
    cfg = TINY.replace(modality="multi", negatives="all", similarity="cosine", eta_tau=1e10)
    run = train(cfg.replace(engine=engine))
    assert (run.status, run.diverged_at) == ("diverged", 1)
    assert run.loss[1:].isnan().all()
    assert run.tau is not None
    assert run.tau[1:].isnan().all()

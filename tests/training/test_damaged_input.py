"""Input that would have been half understood: one error each, and nothing is dropped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmcl_fast import ConfigError, DamagedFileError, DataError, OutputError, Run, TrainConfig, train
from mmcl_fast.sweep.plan.metric_paths import import_metrics

TINY = TrainConfig(n=8, d=12, m=3, n_test=4, epochs=3, device="cpu")


@pytest.mark.parametrize(
    "header", ["not JSON", "[]", "null", "{}", json.dumps({"config": {"nn": 3}})]
)
def test_a_run_file_with_a_damaged_header(header: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    train(TINY).save(path)
    with safe_open(path, framework="pt") as stream:
        metadata = dict(stream.metadata())
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata | {"run": header})
    with pytest.raises(DamagedFileError, match=r"run\.safetensors: expected .*SHA-256"):
        Run.load(path)
    del metadata["content_digest"]  # as version 0.1.0 wrote them
    save_file(tensors, path, metadata | {"run": header})
    with pytest.raises(DamagedFileError, match=r"run\.safetensors: expected an undamaged file"):
        Run.load(path)
    for change in (
        {"loss": torch.zeros(2, 2)},
        {"noise": torch.zeros(9)},
        {"other": torch.ones(1)},
    ):
        save_file(tensors | change, path, metadata)
        with pytest.raises(DamagedFileError, match="expected an undamaged file"):
            Run.load(path)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.ma.masked_array(np.zeros((8, 12)), mask=True), "got a masked array"),
        (torch.zeros(8, 12, device="meta"), "got a meta tensor"),
        (torch.zeros(8, 12).to_sparse(), "got one of layout torch.sparse_coo"),
        ([torch.zeros(12, requires_grad=True)] * 8, "expected numbers, got a list"),
    ],
    ids=["masked", "meta", "sparse", "list"],
)
def test_own_arrays_without_values(noise: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train(TINY, data={"noise": noise})


@pytest.mark.parametrize("value", [1 + 2j, np.complex128(1 + 2j), torch.tensor(1j), 10**400, b"3"])
def test_a_metric_that_is_no_real_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="metrics: expected one number from own, got"):
        train(TINY, metrics={"own": lambda state: value})


def test_half_an_epoch_between_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint_every: expected an integer >= 1, got 1\.5"):
        train(TINY, checkpoint=tmp_path / "c", checkpoint_every=1.5)  # type: ignore[arg-type]


def test_a_module_of_ones_own_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=r"expected a function that can be imported, got .*Syntax"
    ):
        import_metrics((("f", "broken_module:f"),))


def rewritten(path: Path, changes: dict[str, Any], **metadata: str | None) -> None:
    """A checkpoint with other tensors or metadata, without a digest as in version 0.1.0."""
    with safe_open(path, framework="pt") as stream:
        told = dict(stream.metadata()) | metadata | {"content_digest": None}
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    tensors = {k: v for k, v in (tensors | changes).items() if v is not None}
    save_file(tensors, path, {k: v for k, v in told.items() if v is not None})


DAMAGE = {
    "no epoch": ({}, {"epoch": None}, "KeyError: 'epoch'"),
    "epoch in words": ({}, {"epoch": "abc"}, "invalid literal for int"),
    "epoch before the start": ({}, {"epoch": "-100"}, "epoch -100 of 3"),
    "epoch after the end": ({}, {"epoch": "37"}, "epoch 37 of 3"),
    "no config": ({}, {"config": None}, "KeyError: 'config'"),
    "a list as config": ({}, {"config": "[1]"}, "damaged"),
    "deep config": ({}, {"config": "[" * 100_000}, "recursion"),
    "no data": ({}, {"data": None}, "KeyError: 'data'"),
    "no tensor": ({"engine.moved_0": None}, {}, "no tensor moved_0"),
    "no curve": ({"recorder.loss": None}, {}, "no curve loss"),
    "short curve": ({"recorder.noise": torch.zeros(1, 2)}, {}, r"noise has shape \[1, 2\]"),
    "half coefficients": ({"recorder.stored.0.0.mu": None}, {}, "stored.0.0.mu"),
}


@pytest.mark.parametrize(("tensors", "metadata", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_of_version_0_1_0(
    tensors: dict[str, Any], metadata: dict[str, Any], message: str, tmp_path: Path
) -> None:
    cfg, path = TINY.replace(engine="native", coefficients_every=2), tmp_path / "c.safetensors"
    train(cfg, checkpoint=path, checkpoint_every=2)
    rewritten(path, {})
    train(cfg, checkpoint=path)  # undamaged
    rewritten(path, tensors, **metadata)
    with pytest.raises(DamagedFileError, match=f"c.safetensors: expected an undamaged.*{message}"):
        train(cfg, checkpoint=path)


@pytest.mark.parametrize("engine", ["native", "gram", "primal"])
def test_a_checkpoint_with_a_tensor_of_another_shape(engine: Any, tmp_path: Path) -> None:
    cfg, path = TINY.replace(engine=engine), tmp_path / "c.safetensors"
    train(cfg, checkpoint=path, checkpoint_every=2)
    with safe_open(path, framework="pt") as stream:
        name = next(k for k in stream.keys() if k.startswith("engine."))  # noqa: SIM118
    rewritten(path, {name: torch.zeros(1)})
    with pytest.raises(OutputError, match=r"checkpoint: expected .* of .*float32 .*got .*\[1\]"):
        train(cfg, checkpoint=path)


def test_a_fifo_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.safetensors")
    with pytest.raises(OutputError, match="a FIFO, and no regular file"):
        train(TINY, checkpoint=tmp_path / "c.safetensors")
    with pytest.raises(OutputError, match="a FIFO, and no regular file"):
        Run.load(tmp_path / "c.safetensors")

"""Input that would have been half understood: one error each, and nothing is dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmcl_fast import ConfigError, DataError, OutputError, Run, TrainConfig, train
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
    with pytest.raises(OutputError, match="run: expected an undamaged file"):
        Run.load(path)
    for change in (
        {"loss": torch.zeros(2, 2)},
        {"noise": torch.zeros(9)},
        {"other": torch.ones(1)},
    ):
        save_file(tensors | change, path, metadata)
        with pytest.raises(OutputError, match="run: expected an undamaged file"):
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

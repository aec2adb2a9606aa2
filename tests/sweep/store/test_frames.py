"""`to_pandas`: a store wide and long, each value where `load` has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmcl_fast import ConfigError, TrainConfig, __version__
from mmcl_fast.sweep import load, make_plan, to_pandas, to_xarray
from mmcl_fast.sweep.execute import shard

pd = pytest.importorskip("pandas")
BASE = TrainConfig(n=12, d=60, epochs=4, n_test=10, data="reduced", evaluate_every=2)


@pytest.fixture
def store(tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four runs, of which one failed and two have fewer epochs."""
    good = shard.train_many

    def fails(configs: list[TrainConfig], **options: object) -> list:
        if any(cfg.m == 8 and cfg.epochs == 4 for cfg in configs):
            raise ArithmeticError
        return good(configs, **options)

    monkeypatch.setattr(shard, "train_many", fails)
    grid = {"m": [4, 8], "epochs": [4, 2]}
    metrics = {"margin": "mmcl_fast.metrics:margin"}
    compute(make_plan(BASE, grid=grid, seeds=1, metrics=metrics), tmp_path)
    return tmp_path


def test_wide(store: Path) -> None:
    frame, table = to_pandas(store), load(store)
    assert frame.index.name == "run_id"
    assert set(frame) == set(table.column_names) - {
        "run_id", "loss", "ood_accuracy", "signal", "noise", "margin",
    }  # fmt: skip
    np.testing.assert_array_equal(frame.final_margin, table["final_margin"].to_numpy())
    few = to_pandas(store, columns=["m", "loss"])
    assert list(few) == ["m", "loss"]
    assert few.loss[0].tolist() == table["loss"][0].as_py()
    with pytest.raises(ConfigError, match="losss: unknown column; did you mean loss"):
        to_pandas(store, columns=["losss"])


def test_long(store: Path) -> None:
    frame, table = to_pandas(store, "long"), load(store)
    assert list(frame) == [
        "run_id", "m", "epochs", "seed", "status", "epoch", "loss", "ood_accuracy", "signal",
        "noise", "margin",
    ]  # fmt: skip
    assert frame.run_id.tolist() == [0] * 5 + [1] * 3 + [3] * 3, "run 2 failed"
    for run in (0, 1, 3):
        part = frame[frame.run_id == run]
        row = table.slice(run, 1).to_pylist()[0]
        assert part.epoch.tolist() == list(range(row["epochs"] + 1))
        assert set(part.m) == {row["m"]}
        for name in ("loss", "ood_accuracy", "margin"):
            np.testing.assert_array_equal(part[name], row[name])
    assert list(to_pandas(store, "long", columns=["eta"]))[:3] == ["run_id", "eta", "epoch"]
    with pytest.raises(ConfigError, match="form: expected wide or long, got 'tall'"):
        to_pandas(store, "tall")


def test_a_cube_says_what_made_it(store: Path) -> None:
    pytest.importorskip("xarray")
    attributes = to_xarray(store, curves=False).attrs
    assert attributes["n"] == 12
    assert attributes["data"] == "reduced"
    assert not {"m", "epochs", "seed", "tau", "batch_size"} & attributes.keys()
    assert attributes["mmcl_fast"] == __version__
    assert "commit" in attributes

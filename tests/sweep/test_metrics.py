"""Own metrics of a sweep: columns of its store, computed by workers that import the functions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmcl_fast import ConfigError, TrainConfig, metrics, train
from mmcl_fast.cli.command_line import run
from mmcl_fast.sweep import Policy, load, make_plan, run_sweep, to_xarray
from mmcl_fast.sweep.store.plan_file import read_plan
from tests.support.names import without_addresses

BASE = TrainConfig(n=12, d=60, m=4, epochs=4, n_test=10, data="reduced", evaluate_every=2)
OWN = """
def spread(state):
    if state.config.seed == 1 and state.config.m == 8:
        raise ArithmeticError("odd")
    return state.gamma().std()
"""
GIVEN = {"margin": metrics.margin, "rank": "mmcl_fast.metrics:effective_rank"}


def test_metrics_are_columns(tmp_path: Path, compute: Callable) -> None:
    plan = make_plan(BASE, grid={"m": [4, 8], "modality": ["both"]}, seeds=2, metrics=GIVEN)
    assert plan.metric_names == ("margin", "rank")
    compute(plan, tmp_path)
    assert read_plan(tmp_path).metrics == plan.metrics
    table = load(tmp_path)
    both = {"margin": metrics.margin, "rank": metrics.effective_rank}
    for k, cfg in enumerate(plan.configs(range(len(plan)))):
        alone = train(cfg, metrics=both)
        for name in both:
            assert table[name][k].as_py() == alone.metrics[name].tolist()
            assert table[f"final_{name}"][k].as_py() == alone.metrics[name][-1].item()
        assert table["loss"][k].as_py() == alone.loss.tolist()
    assert table.schema.field("margin").type == pa.list_(pa.float64())
    cube = to_xarray(tmp_path)
    assert cube.margin.dims == ("m", "modality", "seed", "epoch")
    np.testing.assert_array_equal(
        cube.final_rank.values.flatten(), table["final_rank"].to_numpy(), strict=True
    )
    # torch computes metrics, so native rows with some depend on it.
    assert "torch" in table["computed_on"][0].as_py()
    assert set(compute(plan, tmp_path).counts) == {"finished"}, "resumes: all rows are there"


def test_a_plan_of_other_metrics_is_another_plan(tmp_path: Path, compute: Callable) -> None:
    plain, measured = (make_plan(BASE, metrics=x) for x in (None, GIVEN))
    assert plain.digest != measured.digest
    assert make_plan(BASE, metrics={}).digest == plain.digest
    renamed = make_plan(BASE, metrics={"edge": metrics.margin, "rank": GIVEN["rank"]})
    assert renamed.digest != measured.digest
    compute(plain, tmp_path)
    for policy in ({}, {"extend": True}):
        with pytest.raises(ConfigError, match="metrics: none in the store, margin = mmcl_fast"):
            compute(measured, tmp_path, **policy)


def test_what_is_no_plan_or_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plan: expected a Plan of sweep\.make_plan, got 'x'"):
        run_sweep("x", tmp_path / "y")
    for name, value in (("workers", 0), ("workers", 1.5), ("max_deaths", True)):
        with pytest.raises(ConfigError, match=f"{name}: expected an integer >= 1, got {value}"):
            Policy(**{name: value})
    with pytest.raises(ConfigError, match="executor: expected one of local, ray, got 'dask'"):
        Policy(executor="dask")
    with pytest.raises(ConfigError, match="extend: expected a store with a plan"):
        run_sweep(make_plan(BASE), tmp_path / "y", policy=Policy(extend=True))
    assert not list(tmp_path.iterdir())


def local() -> Callable:
    def inner(state: object) -> float:
        return 0.0

    return inner


REFUSED = [
    ({"x": local()}, "a function as x that workers can import, got local.<locals>.inner of"),
    ({"x": lambda state: 0.0}, "a function as x that workers can import, got <lambda> of"),
    ({"x": 3}, "a function or module:function as x, got 3"),
    ({"x": "margin"}, "module:function, such as mmcl_fast.metrics:margin, got 'margin'"),
    ({"x": "mmcl_fast.metrics:margn"}, "a function that can be imported, got 'mmcl_fast.metrics"),
    ({"x": "nowhere_to_be:seen"}, "a function that can be imported, got 'nowhere_to_be:seen'"),
    ({"x": "mmcl_fast:__version__"}, "a function, got 'mmcl_fast:__version__', a str"),
    ({"final_x": metrics.margin}, "a name that no curve or setting has, got 'final_x'"),
    ([metrics.margin], "a mapping from names to functions, got ["),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=without_addresses)
def test_functions_that_workers_cannot_import_are_refused(given: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(BASE, metrics=given)
    assert f"expected {message}" in str(caught.value)


SMALL = ["--n", "12", "--d", "60", "--epochs", "3", "--n-test", "10", "--data", "reduced"]


def test_a_module_of_ones_own_from_the_command_line(tmp_path: Path) -> None:
    """As the program is called: a worker finds the module in the folder that it is called in."""
    (tmp_path / "own_metrics.py").write_text(OWN)
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "shared_metrics.py").write_text("def one(state): return 1")
    (tmp_path / "spec.toml").write_text('seeds = 2\n[metrics]\nm2 = "mmcl_fast.metrics:margin"\n')
    flags = ["--grid", "m=4,8", "--metric", "own_metrics:spread", "--out", "store"]
    flags += ["--metric", "shared_metrics:one"]
    # Without `-m`, whose folder is on the path of modules.
    code = "import sys; sys.path[0] = 'library'; from mmcl_fast.cli import main; main()"
    command = [sys.executable, "-c", code, "sweep", "spec.toml", *SMALL, *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, "a run failed"
    table = load(tmp_path / "store")
    assert table["status"].to_pylist() == ["finished", "finished", "finished", "failed"]
    assert "ArithmeticError: odd" in table["error"][3].as_py()
    assert all(len(x) == 4 for name in ("m2", "spread") for x in table[name].to_pylist()[:3])
    assert table["spread"][3].as_py() is None


def test_a_metric_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    chosen = ["--metric", "mmcl_fast.metrics:margin", "--metric", "a=mmcl_fast.metrics:alignment"]
    assert run(["train", *SMALL, *chosen, "--out", str(tmp_path)]) == 0
    assert "margin" in capsys.readouterr().out
    with np.load(tmp_path / "curves.npz") as file:
        assert file["margin"].shape == file["a"].shape == (4,)
    assert run(["train", "--metric", "x", "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()
    assert "metric: expected module:function" in capsys.readouterr().err

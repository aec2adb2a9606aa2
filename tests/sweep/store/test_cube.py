"""`to_xarray`: each row in its cell, whatever an axis was called and whatever a value became."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.errors import DataError
from mmcl_fast.sweep import load, make_plan, to_xarray
from mmcl_fast.sweep.plan.axes import Axis
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.store.axis_positions import position, reconstruct_combinations
from mmcl_fast.sweep.store.plan_file import read_plan, write_plan
from mmcl_fast.sweep.store.store import Store

xr = pytest.importorskip("xarray")
BASE = TrainConfig(n=12, d=60, m=4, epochs=4, n_test=10, data="reduced", evaluate_every=2)
LAST = 2**64 - 1


def places(plan: Plan) -> list[tuple[int, ...]]:
    """The cell of each run, without its seed."""
    along = [position(axis, plan).tolist() for axis in plan.axes]
    return list(zip(*along, strict=True))


GRIDS = {
    "settings": {"m": [8, 4], "optimizer": ["gd", "momentum"], "modality": "both"},
    "derived": {"snr": [0.3, 0.0, 1 / 3, 1e-5], "noise_rate": [0.1, 0.2], "n": [12, 20]},
    "both signals": {"n_snr2": [0.5, 2.0], "c_mu": [1.0, 3.0, 2.0]},
    "close derived": {"noise_start": [0.1, 0.1 + 1e-6, 0.1 - 1e-6]},
    "large integers": {"d": [2**53, 2**53 - 1, 60]},
    "defaults": {"tau": [None, 0.5], "m": [4, 8], "engine": ["gram", "auto"]},
    "no negatives": {"negatives_per_sample": [3, None, 2]},
    "close floats": {"eta": [0.1, np.nextafter(0.1, 1)]},
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_runs_lie_where_they_were_planned(grid: dict) -> None:
    plan = make_plan(BASE, grid=grid, seeds=2)
    shape = [len(axis.rows) for axis in plan.axes]
    expected = [cell for cell in np.ndindex(*shape) for _ in range(2)]
    assert places(plan) == expected
    np.testing.assert_array_equal(reconstruct_combinations(plan), plan.combination_of)


def test_a_plan_file_keeps_combinations(tmp_path: Path) -> None:
    plan = make_plan(BASE, grid={"snr": [0.3, 0.1]}, zipped={"m": [4, 8], "n": [9, 12]}, seeds=2)
    Store(tmp_path).prepare()
    write_plan(plan, tmp_path)
    assert read_plan(tmp_path).combination_of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_zipped_axes_with_defaults_and_undefined_values() -> None:
    plan = make_plan(BASE, zipped={"m": [4, 8, 4], "tau": [None, 0.25, 0.5]}, seeds=2)
    assert places(plan) == [(0,), (0,), (1,), (1,), (2,), (2,)]
    plan = make_plan(BASE, zipped={"snr": [0.0, 0.5, 0.5], "c_mu": [2.0, 2.0, 3.0]})
    assert places(plan) == [(0,), (1,), (2,)], "c_mu of no signal is undefined"


def test_axes_of_seeds() -> None:
    plan = make_plan(BASE, grid={"data_seed": [LAST, None, 2**53 + 1], "m": [4, 8]}, seeds=2)
    assert places(plan) == [(k, j) for k in range(3) for j in range(2) for _ in range(2)]
    plan = make_plan(BASE, zipped={"init_seed": [1, 2], "m": [4, 8]}, seeds=2)
    assert places(plan) == [(0,), (0,), (1,), (1,)]


def test_a_run_beside_the_axis_is_named() -> None:
    plan = make_plan(BASE, grid={"m": [4, 8]})
    with pytest.raises(DataError, match="m: expected every run at one of the axis' values"):
        position(Axis(("m",), ((4,), (5,))), plan)
    with pytest.raises(DataError, match="snr: expected every run at one of the axis' values"):
        position(Axis(("snr",), ((4.0,),)), plan)


def test_every_row_is_in_its_cell(tmp_path: Path, compute: Callable) -> None:
    plan = make_plan(
        BASE,
        grid={"snr": [0.1, 0.3], "modality": "both"},
        zipped={"n": [9, 12], "tau": [None, 0.5]},
        seeds=2,
        first_seed=LAST - 1,
    )
    compute(plan, tmp_path)
    cube = to_xarray(tmp_path)
    assert dict(cube.sizes) == {"snr": 2, "modality": 2, "n": 2, "seed": 2, "epoch": 5}
    assert cube["tau"].dims == ("n",)
    np.testing.assert_array_equal(cube["tau"], [np.nan, 0.5])
    assert cube["seed"].values.tolist() == [LAST - 1, LAST]
    snr_of, n_of = ([0.1, 0.3], [9, 12])
    for row in load(tmp_path).to_pylist():
        snr = min(snr_of, key=lambda x: abs(x - row["snr"]))
        cell = cube.sel(snr=snr, modality=row["modality"], n=row["n"], seed=np.uint64(row["seed"]))
        assert n_of.index(row["n"]) in (0, 1)
        assert (cell["status"], cell["diverged_at"]) == ("finished", -1)
        for name in ("loss", "ood_accuracy", "signal", "noise"):
            np.testing.assert_array_equal(cell[name], np.float32(row[name]))
            np.testing.assert_equal(cell[f"final_{name}"].item(), row[f"final_{name}"])


def test_what_is_missing_is_nan(tmp_path: Path, compute: Callable) -> None:
    plan = make_plan(BASE, grid={"m": [4, 8]}, seeds=2)
    compute(plan, tmp_path, part=(1, 2))
    cube = to_xarray(tmp_path)
    np.testing.assert_array_equal(cube["status"], [["", ""], ["finished"] * 2])
    assert np.isnan(cube["loss"].sel(m=4)).all()
    assert np.isfinite(cube["loss"].sel(m=8)).all()
    assert cube["loss"].dtype == np.float32


def test_diverged_and_failed_runs(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmcl_fast.sweep.execute import shard

    good = shard.train_many

    def fails(configs: list[TrainConfig], **options: object) -> list:
        if any(cfg.seed == 1 for cfg in configs):
            raise ArithmeticError
        return good(configs, **options)

    monkeypatch.setattr(shard, "train_many", fails)
    base = BASE.replace(q=3, sigma_0=1.0, epochs=50)
    compute(make_plan(base, grid={"eta": [1e-9, 1e3]}, seeds=2), tmp_path)
    cube = to_xarray(tmp_path)
    expected = [["finished", "failed"], ["diverged", "failed"]]
    np.testing.assert_array_equal(cube["status"], expected)
    assert (cube["diverged_at"].values >= 0).tolist() == [[False, False], [True, False]]
    assert np.isnan(cube["loss"].isel(seed=1)).all()
    assert np.isfinite(cube["loss"].isel(seed=0, eta=0)).all()


def test_different_numbers_of_epochs(tmp_path: Path, compute: Callable) -> None:
    compute(make_plan(BASE, grid={"epochs": [2, 4]}), tmp_path)
    with pytest.raises(DataError, match=r"epochs: expected one number of epochs .*\[2, 4\]"):
        to_xarray(tmp_path)
    cube = to_xarray(tmp_path, curves=False)
    assert set(cube) == {"status", "diverged_at", *(f"final_{n}" for n in
                         ("loss", "ood_accuracy", "signal", "noise"))}  # fmt: skip
    assert np.isfinite(cube["final_loss"]).all()


def test_an_extended_sweep_has_the_longer_axes(tmp_path: Path, compute: Callable) -> None:
    compute(make_plan(BASE, zipped={"m": [4, 8], "n": [9, 12]}, seeds=2), tmp_path)
    longer = make_plan(BASE, grid={"n": [12, 9], "m": [4, 8, 5]}, seeds=3)
    compute(longer, tmp_path, extend=True)
    cube = to_xarray(tmp_path)
    assert dict(cube.sizes) == {"n": 2, "m": 3, "seed": 3, "epoch": 5}
    assert (cube["status"] == "finished").all()
    for row in load(tmp_path).to_pylist():
        cell = cube.sel(n=row["n"], m=row["m"], seed=row["seed"])
        assert cell["final_loss"].item() == row["final_loss"]


def test_several_runs_of_one_cell_are_refused(tmp_path: Path, compute: Callable) -> None:
    """Run 1 of the store differs from run 0 in its weights' seed alone, which is no axis."""
    plan = make_plan(BASE, grid={"init_seed": [1, 2]})
    Store(tmp_path).prepare()
    write_plan(replace(plan, axes=(), combination_of=np.zeros(2, np.int64)), tmp_path)
    compute(plan, tmp_path)
    with pytest.raises(DataError, match="expected one run per combination and seed, got several"):
        to_xarray(tmp_path)

"""Files of an earlier version load, resume and extend; recomputing them gives the same bits."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mmcl_fast import Run, TrainConfig, sweep, train
from mmcl_fast.cli.command_line import run as mmcl
from mmcl_fast.config import LATER_FIELDS
from mmcl_fast.sweep.execute import runner
from mmcl_fast.sweep.store.plan_file import read_plan
from tests.sweep.conftest import InlinePool

FILES = Path(__file__).parent / "earlier_files"
NATIVE = TrainConfig(n=12, m=4, epochs=6, engine="native", device="cpu", data="reduced")
ELSEWHERE = ("computed_on",)  # names the version that computed a row


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the earlier store, and a runner that computes in this process."""
    monkeypatch.setattr(runner, "_pool", lambda *given: InlinePool())
    return shutil.copytree(FILES / "store", tmp_path / "store")


def plan_of(seeds: int) -> sweep.Plan:
    """The plan of the earlier store, whose runs have 2 seeds."""
    snr = sweep.plan.axes.parse_axis("snr=linspace(0.05,0.5,3)")[1]
    base = NATIVE.replace(epochs=4, n_test=20)
    return sweep.make_plan(base, grid={"modality": "both", "snr": snr}, seeds=seeds)


def same_rows(one: Path, other: Path, runs: int) -> None:
    """The first runs of two stores have equal rows, bit for bit."""
    tables = [sweep.load(store).drop_columns(ELSEWHERE).slice(0, runs) for store in (one, other)]
    for name in tables[0].column_names:
        values = [table[name].combine_chunks() for table in tables]
        if name in ("loss", "ood_accuracy", "signal", "noise"):
            values = [column.flatten() for column in values]
        assert_array_equal(*(column.to_numpy(zero_copy_only=False) for column in values), name)


def test_a_plan_made_now_is_the_stored_one() -> None:
    stored, now = read_plan(FILES / "store"), plan_of(2)
    assert stored.points == now.points
    assert stored.axes == now.axes
    assert_array_equal(stored.seeds, now.seeds)
    assert stored.combination_of is None
    assert [stored.shard_size(k) for k in range(stored.shards)] == [6, 6]


def test_a_store_is_recomputed_bit_for_bit(store: Path, tmp_path: Path) -> None:
    sweep.run_sweep(plan_of(2), tmp_path / "now")
    assert sweep.load(store).num_rows == 12
    same_rows(store, tmp_path / "now", 12)


def test_a_store_extends_and_keeps_its_rows(store: Path) -> None:
    before = {path.name: path.read_bytes() for path in (store / "parts").iterdir()}
    policy = sweep.Policy(extend=True, any_engine=True)  # of whatever version
    result = sweep.run_sweep(plan_of(3), store, policy=policy)
    assert (result.computed, result.counts) == (6, {"finished": 18})
    assert {name: (store / "parts" / name).read_bytes() for name in before} == before
    same_rows(FILES / "store", store, 12)


def test_a_cube_of_a_plan_without_combinations(store: Path) -> None:
    pytest.importorskip("xarray")
    cube = sweep.to_xarray(store)
    assert dict(cube.sizes) == {"modality": 2, "snr": 3, "seed": 2, "epoch": 5}
    for row in sweep.load(store).to_pylist():
        cell = cube.sel(modality=row["modality"], seed=row["seed"])
        assert row["final_loss"] in cell["final_loss"].values
    sweep.run_sweep(plan_of(3), store, policy=sweep.Policy(extend=True, any_engine=True))
    longer = sweep.to_xarray(store)
    assert_array_equal(longer["loss"].isel(seed=slice(2)), cube["loss"])


def test_a_checkpoint_resumes_to_the_same_bits(tmp_path: Path) -> None:
    shutil.copy(FILES / "checkpoint.safetensors", tmp_path)
    epochs: list[int] = []
    resumed = train(
        NATIVE,
        on_epoch=lambda info: epochs.append(info.epoch),
        checkpoint=tmp_path / "checkpoint.safetensors",
        checkpoint_every=2,
    )
    assert epochs == [4, 5, 6]
    for name, curve in _arrays(train(NATIVE)).items():
        assert_array_equal(_arrays(resumed)[name], curve, name)


def _arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def test_train_gives_the_same_files(tmp_path: Path) -> None:
    flags = ["--n", "12", "--m", "4", "--epochs", "6", "--engine", "native", "--device", "cpu"]
    flags += ["--data", "reduced", "--coefficients-every", "2", "--out", str(tmp_path)]
    assert mmcl(["train", *flags]) == 0
    now, then = (_arrays_of(folder / "curves.npz") for folder in (tmp_path, FILES))
    assert list(now) == list(then)
    for name, array in then.items():
        assert_array_equal(now[name], array, name)
        assert now[name].dtype == array.dtype
    found, expected = (_read(folder / "run.json") for folder in (tmp_path, FILES))
    assert found == _with_later_fields(expected)


def test_figure1_gives_the_same_file(tmp_path: Path) -> None:
    flags = ["--seeds", "1", "--epochs", "5", "--engine", "native", "--device", "cpu"]
    assert mmcl(["figure1", *flags, "--out", str(tmp_path)]) == 0
    found, expected = (_read(folder / "figure1.json") for folder in (tmp_path, FILES))
    assert found == _with_later_fields(expected)


def test_training_again_into_an_earlier_directory(tmp_path: Path) -> None:
    """A directory's run is compared by what its file means, not by the settings that it lists."""
    flags = ["train", "--n", "12", "--m", "4", "--epochs", "6", "--engine", "native"]
    flags += ["--device", "cpu", "--data", "reduced", "--coefficients-every", "2"]
    shutil.copy(FILES / "run.json", tmp_path)
    assert mmcl([*flags, "--out", str(tmp_path)]) == 0
    assert mmcl([*flags, "--probe-on", "ood", "--out", str(tmp_path)]) == 2


def test_rows_have_what_a_store_without_a_setting_means(store: Path) -> None:
    names = ["run_id", "probe_on", "probe_samples", "seed"]
    rows = sweep.load(store, names).to_pylist()
    assert {(row["probe_on"], row["probe_samples"]) for row in rows} == {("train", None)}


def _arrays(run: Run) -> dict[str, np.ndarray]:
    curves = {name: curve.numpy() for name, curve in run.curves().items()}
    return curves | {"gamma": run.gamma.numpy(), "rho": run.rho.numpy()}


def _with_later_fields(found: dict) -> dict:
    """A file with the settings that its version lacked, as it means them."""
    return found | {"config": {**LATER_FIELDS, **found["config"]}}


def _read(path: Path) -> dict:
    """A JSON file without the machine that wrote it."""
    found = json.loads(path.read_text())
    del found["environment"]
    return found

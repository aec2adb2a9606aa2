"""`--add`: values and seeds added to the plan of a store, without its grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mmcl_fast import ConfigError, TrainConfig
from mmcl_fast.cli.command_line import run
from mmcl_fast.sweep import Plan, load, make_plan, to_xarray
from mmcl_fast.sweep.plan.additions import with_additions
from mmcl_fast.sweep.store.plan_file import read_plan
from tests.sweep.disturbance import parts, same_parts

BASE = TrainConfig(n=12, d=60, epochs=4, n_test=10, data="reduced", evaluate_every=2)
pytestmark = pytest.mark.usefixtures("inline")


def stored(tmp_path: Path, compute: Callable, **grid: object) -> Plan:
    compute(make_plan(BASE, seeds=2, **grid), tmp_path)
    return read_plan(tmp_path)


def test_values_seeds_and_new_axes(tmp_path: Path, compute: Callable) -> None:
    plan = stored(tmp_path, compute, grid={"m": [4, 8], "snr": [0.2]})
    for additions, asked in (
        ({"m": [5]}, {"grid": {"m": [4, 8, 5], "snr": [0.2]}, "seeds": 2}),
        ({"seeds": [3]}, {"grid": {"m": [4, 8], "snr": [0.2]}, "seeds": 3}),
        ({"snr": [0.1, 0.3]}, {"grid": {"m": [4, 8], "snr": [0.2, 0.1, 0.3]}, "seeds": 2}),
        # The temperature follows the width, as it does in the stored runs: its default is kept.
        ({"eta": [0.02]}, {"grid": {"m": [4, 8], "snr": [0.2], "eta": [0.01, 0.02]}, "seeds": 2}),
        ({"modality": ["both"]},
         {"grid": {"m": [4, 8], "snr": [0.2], "modality": ["single", "multi"]}, "seeds": 2}),
        ({"m": [8, 4]}, {"grid": {"m": [4, 8], "snr": [0.2]}, "seeds": 2}),
    ):  # fmt: skip
        assert with_additions(plan, additions).digest == make_plan(BASE, **asked).digest


WRONG = [
    ({"seeds": [1]}, "add: expected seeds = their number in all, at least the 2 of the plan, got"),
    ({"seeds": [3, 4]}, "add: expected seeds = their number in all, at least the 2 of the plan"),
    ({"n_snr2": [1.0]}, "add: expected a setting or an axis of the plan, got n_snr2"),
    ({"n": [20]}, "add: expected an axis by itself, got n, which varies jointly with others"),
    ({"m": [0]}, "m: expected an integer >= 1, got 0"),
]


@pytest.mark.parametrize(("additions", "message"), WRONG, ids=str)
def test_mistakes(additions: dict, message: str) -> None:
    plan = make_plan(BASE, grid={"m": [4]}, zipped={"n": [12, 14], "eta": [0.1, 0.2]}, seeds=2)
    with pytest.raises(ConfigError) as caught:
        with_additions(plan, additions)
    assert str(caught.value).startswith(message)
    with pytest.raises(ConfigError, match="give the whole grid with --extend"):
        with_additions(replace(plan, recipe=None), {"m": [5]})


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small = ["--n", "12", "--d", "60", "--epochs", "4", "--n-test", "10", "--data", "reduced"]
    assert run(["sweep", *small, "--grid", "m=4,8", "--seeds", "2", "--out", str(tmp_path)]) == 0
    before = parts(tmp_path)
    add = ["sweep", "--out", str(tmp_path), "--add", "m=16", "--add", "seeds=3"]
    assert run([*add, "--dry-run"]) == 0
    assert "9 runs (3 settings)" in capsys.readouterr().out
    assert parts(tmp_path).keys() == before.keys()
    for computed in (5, 0):  # the same command again resumes
        assert run(add) == 0
        said = capsys.readouterr()
        assert (f"{computed} in " in said.out) == bool(computed)
    after = parts(tmp_path)
    assert same_parts({k: after[k] for k in before}, before)
    table = load(tmp_path, ["m", "seed"])
    assert sorted(set(zip(*table.to_pydict().values(), strict=True))) == [
        (m, s) for m in (4, 8, 16) for s in range(3)
    ]
    assert dict(to_xarray(tmp_path).loss.sizes) == {"m": 3, "seed": 3, "epoch": 5}

"""Plans of both modalities with settings that one of them alone has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmcl_fast import ConfigError, TrainConfig, train
from mmcl_fast.cli.command_line import run
from mmcl_fast.sweep import load, make_plan, to_xarray
from mmcl_fast.sweep.plan.additions import with_additions
from mmcl_fast.sweep.plan.axes import Axis
from mmcl_fast.sweep.plan.modalities import ONLY, joined, separated
from mmcl_fast.sweep.store.plan_file import read_plan

BASE = TrainConfig(n=12, d=60, m=4, epochs=3, n_test=10, data="reduced", evaluate_every=3)
MULTI = BASE.replace(modality="multi", spurious_b_norm=2.0)
BOTH = {"modality": "both"}


def test_the_table_is_of_what_a_modality_refuses() -> None:
    """Every setting of one modality is refused by the other: else none would have to be joined."""
    other = {
        "augment": "per_epoch", "view_scale": 0.5, "view_mask": 0.1, "spurious_b_norm": 2.0,
        "mu_c_norm": 0.0, "d_c": 30, "sigma_xi_c": 2.0, "spurious_c_norm": 2.0,
    }  # fmt: skip
    assert other.keys() == ONLY.keys()
    for name, value in other.items():
        own = ONLY[name]
        third = {"mu_c_norm": 1.0} if name.endswith(("_c", "c_norm")) else {}
        cfg = TrainConfig(modality=own, **{**third, name: value})
        culprit = "mu_c_norm" if third else name  # without which the others are refused
        with pytest.raises(ConfigError, match=f"{culprit}: expected"):
            cfg.replace(modality="multi" if own == "single" else "single")
        if third:
            with pytest.raises(ConfigError, match=f"{name}: expected"):
                cfg.replace(modality="single", **dict.fromkeys({"mu_c_norm"} - {name}))


CASES: list[tuple[TrainConfig, dict[str, Any], dict[str, dict[str, Any]]]] = [
    (
        MULTI.replace(spurious_norm=1.0, spurious_correlation=0.5),
        {},
        {"single": {"spurious_b_norm": 0.0}, "multi": {"spurious_b_norm": 2.0}},
    ),
    (  # without an attribute in A its correlation is read in multi-modal runs alone
        MULTI.replace(spurious_correlation=0.5, spurious_correlation_test=0.1),
        {},
        {
            "single": {
                "spurious_b_norm": 0.0,
                "spurious_correlation": 0.8,
                "spurious_correlation_test": None,
            },
            "multi": {
                "spurious_b_norm": 2.0,
                "spurious_correlation": 0.5,
                "spurious_correlation_test": 0.1,
            },
        },
    ),
    (
        BASE,
        {"view_scale": [0.5], "spurious_b_norm": [2]},
        {
            "single": {"view_scale": 0.5, "spurious_b_norm": 0.0},
            "multi": {"view_scale": 1.0, "spurious_b_norm": 2.0},
        },
    ),
    (
        BASE.replace(augment="per_epoch"),
        {},
        {"single": {"augment": "per_epoch"}, "multi": {"augment": "fixed"}},
    ),
    (  # a signal of strength 0 is a third modality, too
        MULTI.replace(
            mu_c_norm=0.0, d_c=30, spurious_b_norm=0.0, spurious_c_norm=2.0, spurious_correlation=1
        ),
        {"sigma_xi_c": [0.5]},
        {
            "single": {
                "mu_c_norm": None,
                "d_c": None,
                "sigma_xi_c": None,
                "spurious_c_norm": 0.0,
                "spurious_correlation": 0.8,
            },
            "multi": {
                "mu_c_norm": 0.0,
                "d_c": 30,
                "sigma_xi_c": 0.5,
                "spurious_c_norm": 2.0,
                "spurious_correlation": 1.0,
            },
        },
    ),
]


@pytest.mark.parametrize(
    ("base", "grid", "expected"), CASES, ids=["both", "b", "grid", "augment", "third"]
)
def test_the_other_modality_keeps_the_default(
    base: TrainConfig, grid: dict[str, Any], expected: dict[str, dict[str, Any]]
) -> None:
    plan = make_plan(base, grid=BOTH | grid | {"m": [4, 6]}, seeds=2)
    assert len(plan) == 8
    for k in range(len(plan)):
        cfg = plan.config(k)
        found = {name: getattr(cfg, name) for name in expected["single"]}
        assert found == expected[cfg.modality]
    columns = {name: [expected[x][name] for x in expected] for name in expected["single"]}
    explicit = {"modality": [*expected], **columns}
    # Zipped by hand it is the same plan, but for the order of its combinations.
    bare = base.replace(modality="single", **expected["single"])
    by_hand = make_plan(bare, grid={"m": [4, 6]}, zipped=explicit, seeds=2)
    assert {*by_hand.points} == {*plan.points}


def test_several_values_are_refused_with_what_to_type() -> None:
    told = (
        r"spurious_b_norm: expected 0\.0 with modality single, got 1.0 \(at modality = single, .*"
        r"--zip modality=single,multi,\.\.\. --zip spurious_b_norm=0.0,\.\.\."
    )
    with pytest.raises(ConfigError, match=told):
        make_plan(BASE, grid=BOTH | {"spurious_b_norm": [0.0, 1.0, 2.0]})
    with pytest.raises(ConfigError, match=r"--zip mu_c_norm=none,\.\.\."):
        make_plan(BASE, grid=BOTH | {"mu_c_norm": [None, 1.0]})
    zipped = {"modality": ["single", "multi", "multi"], "spurious_b_norm": [0, 1, 2]}
    assert len(make_plan(BASE, zipped=zipped)) == 3


def test_plans_without_such_settings_keep_their_axes() -> None:
    axes = make_plan(BASE, grid=BOTH | {"view_mask": [0.0], "m": [4]}).axes
    assert [axis.names for axis in axes] == [("modality",), ("view_mask",), ("m",)]
    alone = make_plan(MULTI, grid={"modality": ["multi"], "m": [4]}).axes
    assert [axis.names for axis in alone] == [("modality",), ("m",)]


def test_a_joined_axis_is_separated_again() -> None:
    for base, grid, _ in CASES:
        plan = make_plan(base, grid=BOTH | grid)
        (axis,) = plan.axes
        entries = separated(axis)
        assert entries is not None
        assert joined(BASE, [Axis((k,), tuple((v,) for v in x)) for k, x in entries.items()]) == (
            axis,
        )
    assert separated(Axis(("modality", "n"), (("single", 12), ("multi", 14)))) is None
    assert separated(Axis(("modality", "view_mask"), (("single", 0.1), ("single", 0.2)))) is None


def test_a_store_says_what_was_used_and_grows(tmp_path: Path, compute: Callable) -> None:
    plan = make_plan(MULTI, grid=BOTH, seeds=2)
    compute(plan, tmp_path)
    rows = load(tmp_path, ["modality", "spurious_b_norm", "final_loss", "seed"]).to_pylist()
    assert [(row["modality"], row["spurious_b_norm"]) for row in rows[::2]] == [
        ("single", 0.0),
        ("multi", 2.0),
    ]
    alone = train(BASE.replace(seed=1)), train(MULTI.replace(seed=1))
    assert [row["final_loss"] for row in rows[1::2]] == [run.loss[-1].item() for run in alone]
    longer = with_additions(read_plan(tmp_path), {"m": [6], "seeds": [3]})
    assert longer.digest == make_plan(MULTI, grid=BOTH | {"m": [4, 6]}, seeds=3).digest
    compute(longer, tmp_path, extend=True)
    with pytest.raises(ConfigError, match="spurious_b_norm is of modality multi alone"):
        with_additions(longer, {"spurious_b_norm": [3.0]})
    pytest.importorskip("xarray")
    cube = to_xarray(tmp_path)
    assert cube.final_loss.sizes == {"modality": 2, "m": 2, "seed": 3}
    assert cube.spurious_b_norm.values.tolist() == [0.0, 2.0]
    assert cube.spurious_b_norm.dims == ("modality",)


FILE = """
[base]
n = 12
d = 60
m = 4
data = "reduced"
spurious_b_norm = 2
[grid]
modality = "both"
"""


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "sweep.toml").write_text(FILE)
    said = "\nspurious_b_norm 0.0 in single-modal runs, 2.0 in multi-modal runs\n"
    flags = ["--grid", "modality=both", "--n", "12", "--d", "60", "--m", "4", "--data", "reduced"]
    plans = []
    for own in ([*flags, "--spurious-b-norm", "2"], [str(tmp_path / "sweep.toml")]):
        assert run(["sweep", *own, "--out", str(tmp_path / "s"), "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert said in out
        plans.append(out.partition(":")[0])
    assert plans[0] == plans[1]
    mixed = [*flags, "--spurious-b-norm", "2", "--view-scale", "0.5", "--out", "x", "--dry-run"]
    assert run(["sweep", *mixed]) == 2
    assert "view_scale: expected an axis of one value beside spurious_b_norm and both" in (
        capsys.readouterr().err
    )

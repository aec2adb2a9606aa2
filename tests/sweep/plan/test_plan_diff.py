"""Which plans are the same, which extend another, and what is said where they differ."""

from dataclasses import replace

import numpy as np
import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep import make_plan
from mmcl_fast.sweep.plan.plan_diff import difference, extend_plan, same_runs
from mmcl_fast.sweep.plan.point_table import Points
from mmcl_fast.sweep.store.axis_positions import reconstruct_combinations

BASE = TrainConfig(n=12, d=60, m=4, epochs=6, n_test=10, data="reduced")
STORED = make_plan(BASE, grid={"m": [4, 8], "snr": [0.1, 0.2]}, seeds=2)


def test_the_same_runs_in_another_order_or_by_other_axes() -> None:
    assert same_runs(STORED, make_plan(BASE, grid={"snr": [0.2, 0.1], "m": [8, 4]}, seeds=2))
    zipped = {"m": [4, 4, 8, 8], "snr": [0.1, 0.2, 0.1, 0.2]}
    assert same_runs(STORED, make_plan(BASE, zipped=zipped, seeds=2))
    assert same_runs(STORED, replace(STORED, numerics=("elsewhere",) * 4))


OTHERS = {
    "a seed more": (BASE, {"m": [4, 8], "snr": [0.1, 0.2]}, 3),
    "other seeds": (BASE.replace(seed=1), {"m": [4, 8], "snr": [0.1, 0.2]}, 2),
    "another value": (BASE, {"m": [4, 8], "snr": [0.1, 0.3]}, 2),
    "another setting": (BASE.replace(eta=0.5), {"m": [4, 8], "snr": [0.1, 0.2]}, 2),
    "other weights": (BASE.replace(init_seed=0), {"m": [4, 8], "snr": [0.1, 0.2]}, 2),
    "other data": (BASE.replace(data_seed=0), {"m": [4, 8], "snr": [0.1, 0.2]}, 2),
}  # fmt: skip


@pytest.mark.parametrize(("base", "grid", "seeds"), OTHERS.values(), ids=OTHERS)
def test_other_runs_are_told_apart(base: TrainConfig, grid: dict, seeds: int) -> None:
    assert not same_runs(STORED, make_plan(base, grid=grid, seeds=seeds))


def test_other_combinations_of_the_same_values() -> None:
    ours = make_plan(BASE, zipped={"m": [4, 8], "snr": [0.1, 0.2]})
    other = make_plan(BASE, zipped={"m": [4, 8], "snr": [0.2, 0.1]})
    assert not same_runs(ours, other)
    assert difference(ours, other) == "2 runs in the store, 2 other combinations asked for"


def test_the_same_runs_on_another_device() -> None:
    elsewhere = replace(
        STORED, points=Points.of([c.replace(device="cuda", engine="gram") for c in STORED.points])
    )
    assert not same_runs(elsewhere, STORED)
    assert same_runs(elsewhere, STORED, anywhere=True)
    other = make_plan(BASE, grid={"m": [4, 8], "snr": [0.1, 0.3]}, seeds=2)
    assert not same_runs(elsewhere, other, anywhere=True)


LONGER = {
    "seeds": (BASE, {"m": [4, 8], "snr": [0.1, 0.2]}, 3),
    "values, in another order": (BASE, {"snr": [0.3, 0.2, 0.1], "m": [16, 8, 4]}, 2),
    "an axis": (BASE, {"m": [4, 8], "snr": [0.1, 0.2], "eta": [0.5, BASE.eta]}, 2),
    "both modalities": (BASE, {"m": [4, 8], "snr": [0.1, 0.2], "modality": "both"}, 4),
}


@pytest.mark.parametrize(("base", "grid", "seeds"), LONGER.values(), ids=LONGER)
def test_an_extension_keeps_ids_and_shards(base: TrainConfig, grid: dict, seeds: int) -> None:
    asked = make_plan(base, grid=grid, seeds=seeds)
    longer = extend_plan(STORED, asked)
    assert same_runs(longer, asked)
    assert longer.configs(range(len(STORED))) == STORED.configs(range(len(STORED)))
    np.testing.assert_array_equal(longer.shard_of[: len(STORED)], STORED.shard_of)
    assert min(longer.shard_of[len(STORED) :]) == STORED.shards
    assert set(longer.shard_of.tolist()) == set(range(longer.shards))
    for shard in range(STORED.shards):
        assert longer.shard_digest(shard) == STORED.shard_digest(shard)
    assert len(set(longer.points)) == len(longer.points) == len(longer.numerics)
    np.testing.assert_array_equal(longer.combination_of, reconstruct_combinations(longer))


def test_an_extension_knows_where_old_runs_were_to_be_computed() -> None:
    stored = replace(STORED, numerics=("elsewhere",) * 4)
    asked = make_plan(BASE, grid={"m": [4, 8, 16], "snr": [0.1, 0.2]}, seeds=2)
    longer = extend_plan(stored, asked)
    assert longer.numerics[:4] == ("elsewhere",) * 4
    assert longer.numerics[4:] == (STORED.numerics[0],) * 2


def test_a_plan_without_some_runs_is_no_extension() -> None:
    asked = make_plan(BASE.replace(eta=0.5), grid={"m": [4, 16], "snr": [0.1, 0.2]}, seeds=3)
    with pytest.raises(ConfigError) as refused:
        extend_plan(STORED, asked)
    said = str(refused.value)
    assert said.startswith("extend: expected a plan with every run of the store")
    for part in (
        "m: 8 only in the store, 16 only asked for",
        "eta: 0.01 only in the store, 0.5 only asked for",
        "data_seed: 0 .. 1 in the store, 0 .. 2 asked for",
    ):
        assert part in said
    assert "snr" not in said
    assert "mu_norm" not in said


def test_a_difference_between_many_values_is_shown() -> None:
    ours = make_plan(BASE, grid={"m": range(1, 41)})
    other = make_plan(BASE, grid={"m": [*range(1, 20), *range(21, 42)]})
    assert "m: 20 only in the store, 41 only asked for" in difference(ours, other)
    wide = difference(ours, make_plan(BASE, grid={"m": range(101, 131)}))
    assert "m: 1, 2, 3, 4, 5, ..., 40 only in the store" in wide

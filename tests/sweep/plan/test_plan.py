"""Plans: the table of runs, its hash, its file; a million runs in seconds."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.config import FIELD_NAMES
from mmcl_fast.errors import ConfigError, DamagedFileError, OutputError
from mmcl_fast.sweep import Plan, make_plan
from mmcl_fast.sweep.plan.plan_diff import extend_plan, same_runs
from mmcl_fast.sweep.store.plan_file import PLAN_FILE, read_outline, read_plan, write_plan
from tests.sweep.rewriting import rewrite

BASE = TrainConfig(n=12, d=60, m=4, epochs=6, n_test=10, data="reduced")
LAST = 2**64 - 1


def test_runs_count_combinations_in_order_and_seeds_fastest() -> None:
    plan = make_plan(BASE, grid={"m": [8, 4], "eta": [0.1, 0.2]}, seeds=2, first_seed=5)
    told = [(c.m, c.eta, c.seed, c.data_seed, c.init_seed) for c in plan.configs(range(8))]
    assert told == [
        (m, eta, seed, seed, seed) for m in (8, 4) for eta in (0.1, 0.2) for seed in (5, 6)
    ]
    assert len(plan) == 8
    assert plan.config(3) == plan.configs([3])[0]


def test_zipped_values_move_together() -> None:
    plan = make_plan(BASE, grid={"m": [4, 8]}, zipped={"n": [10, 20], "eta": [0.1, 0.2]})
    told = [(c.m, c.n, c.eta) for c in plan.configs(range(4))]
    assert told == [(4, 10, 0.1), (4, 20, 0.2), (8, 10, 0.1), (8, 20, 0.2)]


def test_seeds_of_data_and_weights_on_their_own() -> None:
    fixed = make_plan(BASE.replace(data_seed=7), seeds=2)
    assert fixed.seeds.tolist() == [[0, 7, 0], [1, 7, 1]]
    axis = make_plan(BASE, grid={"init_seed": [3, None]}, seeds=2)
    assert axis.seeds.tolist() == [[0, 0, 3], [1, 1, 3], [0, 0, 0], [1, 1, 1]]
    assert len(axis.points) == 1, "seeds are no settings of a point"


def test_seeds_up_to_the_last_one() -> None:
    plan = make_plan(BASE.replace(seed=LAST - 1), grid={"data_seed": [None, 2**53 + 1]}, seeds=2)
    assert [c.seed for c in plan.configs(range(2))] == [LAST - 1, LAST]
    assert [c.data_seed for c in plan.configs(range(4))] == [LAST - 1, LAST, 2**53 + 1, 2**53 + 1]


MISTAKES = [
    ({"seeds": 0}, "seeds: expected an integer >= 1, got 0"),
    ({"seeds": 1.5}, "seeds: expected an integer >= 1, got 1.5"),
    ({"seeds": True}, "seeds: expected an integer >= 1, got True"),
    ({"first_seed": -1}, "first_seed: expected an integer >= 0, got -1"),
    ({"first_seed": LAST, "seeds": 2}, "seed: expected an integer in 0 .. 2"),
    ({"grid": {"seed": [1]}}, "seed: expected seeds and first_seed instead of an axis"),
    ({"grid": {"data_seed": [-1]}}, "data_seed: expected an integer in 0 .. 2"),
    ({"seeds": 10**8}, "seeds: expected at most 10000000, got 100000000"),
    (
        {"grid": {"eta": range(1, 10**4), "tau": range(1, 10**4)}},
        "grid: expected at most 10000000 runs, got 99980001 combinations x 1 seeds",
    ),
    (
        {"grid": {"data_seed": [1], "init_seed": [2]}, "seeds": 2},
        "grid: expected different runs, got equal settings, data_seed and init_seed in runs 0 and",
    ),
    ({"grid": {"tau": [None, 0.25]}}, "grid: expected different runs, .* in runs 0 and 1"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[m[:50] for _, m in MISTAKES])
def test_mistakes(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(BASE, **arguments)


OTHER = {
    "modality": "multi", "augment": "per_epoch", "data": "explicit", "optimizer": "momentum",
    "engine": "gram", "dtype": "float64", "negatives_per_sample": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", [*OTHER, "n", "d", "m", "q", "mu_norm", "tau", "eta", "seed"])
def test_the_hash_sees_every_kind_of_setting(name: str) -> None:
    value = OTHER.get(name) or (getattr(BASE, name) or 0) + 1
    ours = make_plan(BASE)
    other = make_plan(BASE.replace(**{name: value}))
    assert ours.digest != other.digest
    assert ours.shard_digest(0) != other.shard_digest(0)
    assert ours.digest == make_plan(BASE).digest


def test_the_hash_sees_seeds_ids_shards_and_arithmetic() -> None:
    plan = make_plan(BASE, grid={"m": [4, 8]}, seeds=2)
    seeds = plan.seeds.copy()
    seeds[1, 2] += 1
    digests = {
        plan.digest,
        replace(plan, seeds=seeds).digest,
        replace(plan, point_of=plan.point_of[::-1].copy()).digest,
        replace(plan, shard_of=1 - plan.shard_of).digest,
        replace(plan, numerics=("other", "other")).digest,
    }
    assert len(digests) == 5
    assert replace(plan, numerics=("other", "other")).shard_digest(0) != plan.shard_digest(0)


def same(ours: Plan, theirs: Plan) -> None:
    assert ours.points == theirs.points
    for name in ("point_of", "seeds", "shard_of"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)
    assert (ours.axes, ours.numerics, ours.digest) == (theirs.axes, theirs.numerics, theirs.digest)
    assert list(map(type, ours.axes[0].rows[0])) == list(map(type, theirs.axes[0].rows[0]))


FILED = {
    "wide": {"grid": {"d": [60, 2**53], "modality": "both"}, "seeds": 2, "first_seed": LAST - 1},
    "odd": {"grid": {"tau": [None, 0.1], "snr": [0.0, 1 / 3]}, "seeds": 3},
    "float64": {"grid": {"dtype": ["float32", "float64"], "negatives_per_sample": [None, 3]}},
    "zipped": {"zipped": {"n": [10, 20], "noise_rate": [0.1, 0.2]}},
}


@pytest.mark.parametrize("arguments", FILED.values(), ids=FILED)
def test_a_file_gives_the_plan_back(arguments: dict, tmp_path: Path) -> None:
    plan = make_plan(BASE, **arguments)
    assert write_plan(plan, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [PLAN_FILE]
    same(read_plan(tmp_path), plan)
    outline = read_outline(tmp_path)
    assert (outline.runs, outline.shards, outline.dtype) == (len(plan), plan.shards, plan.dtype)
    for shard in range(plan.shards):
        assert outline.shard_digest(shard) == plan.shard_digest(shard)
        assert outline.shard_size(shard) == plan.shard_size(shard) == len(plan.runs_of(shard))
    # One row a run, with everything in it, for whoever reads it with something else.
    rows = pq.read_table(tmp_path / PLAN_FILE).to_pylist()
    for row, cfg in zip(rows, plan.configs(range(len(plan))), strict=True):
        assert {name: row[name] for name in FIELD_NAMES} == cfg.to_dict()


def test_a_missing_or_cut_file(tmp_path: Path) -> None:
    for read in (read_plan, read_outline):
        with pytest.raises(OutputError, match=r"store: expected a directory with plan.parquet"):
            read(tmp_path)
    write_plan(make_plan(BASE, seeds=4), tmp_path)
    path = tmp_path / PLAN_FILE
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        for read in (read_plan, read_outline):
            with pytest.raises(OutputError, match=r"plan.parquet: expected an undamaged file"):
                read(tmp_path)


def test_every_changed_byte_of_a_plan_is_named(tmp_path: Path) -> None:
    write_plan(make_plan(BASE, grid={"m": [4, 8]}, seeds=4), tmp_path)
    path = tmp_path / PLAN_FILE
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place in np.random.default_rng(3).integers(0, len(whole), 150).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        readers = [read_plan, partial(read_outline, runs=True)]
        for read in readers + [read_outline] * (place >= footer):
            with pytest.raises(DamagedFileError, match=r"^plan\.parquet: expected an undamaged"):
                read(tmp_path)


def test_another_format_and_other_runs(tmp_path: Path) -> None:
    write_plan(make_plan(BASE, seeds=4), tmp_path)
    path = tmp_path / PLAN_FILE
    rewrite(path, digest="0" * 64)
    with pytest.raises(OutputError, match="other runs than its hash says"):
        read_plan(tmp_path)
    rewrite(path, schema=99)
    for read in (read_plan, read_outline):
        with pytest.raises(ConfigError, match="expected a store of format 1, got 99"):
            read(tmp_path)


def test_planning_scales_to_a_million_runs(tmp_path: Path) -> None:
    """A quarter of 10^4 settings x 100 seeds; the bound is five times what a core of 2025 needs."""
    grid = {"snr": np.linspace(0.01, 1, 25), "n": range(20, 120, 10), "m": range(16, 26)}
    base = BASE.replace(epochs=200)
    started = time.process_time()
    plan = make_plan(base, grid=grid, seeds=100)
    write_plan(plan, tmp_path)
    stored = read_plan(tmp_path)
    assert same_runs(stored, plan)
    longer = extend_plan(stored, make_plan(base, grid=grid | {"m": range(16, 27)}, seeds=100))
    spent = time.process_time() - started
    assert (len(plan), len(plan.points), len(longer)) == (250_000, 2500, 275_000)
    assert spent < 8

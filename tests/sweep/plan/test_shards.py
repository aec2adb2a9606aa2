"""The cut: every run in one shard, shards of like work; and N parts of them."""

import heapq

import numpy as np
import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.sweep import Plan, make_plan
from mmcl_fast.sweep.execute.schedule import chosen_shards, job_seconds, shard_seconds
from mmcl_fast.sweep.plan.shards import LEAST_SECONDS, SHARD_RUNS, SHARD_SECONDS, run_seconds

BASE = TrainConfig(n=12, d=60, m=4, epochs=6, n_test=10, data="reduced")
CASES = {
    "one_run": ({}, 1),
    "tiny": ({"m": [4, 8]}, 3),
    "many_seeds": ({"snr": [0.1, 0.2]}, 5000),
    "long_runs": ({"n": [1000, 2000], "m": [500]}, 2),
    "mixed": ({"modality": "both", "n": [12, 200], "eta": [0.1, 0.2]}, 200),
}


@pytest.mark.parametrize(("grid", "seeds"), CASES.values(), ids=CASES)
def test_every_run_is_in_one_shard(grid: dict, seeds: int) -> None:
    plan = make_plan(BASE.replace(epochs=200), grid=grid, seeds=seeds)
    shards = [plan.runs_of(k) for k in range(plan.shards)]
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), np.arange(len(plan)))
    seconds = np.array([run_seconds(cfg) for cfg in plan.points])[plan.point_of]
    for runs in shards:
        assert 1 <= len(runs) <= SHARD_RUNS + 1
        np.testing.assert_array_equal(runs, np.sort(runs))
        assert seconds[runs].sum() <= max(1.5 * SHARD_SECONDS, 2 * seconds[runs].max())


def test_small_shapes_share_shards_and_large_ones_have_their_own() -> None:
    """10^6 runs of 10^5 shapes are thousands of files, not 10^5."""
    many = make_plan(BASE, grid={"n": range(10, 210), "m": range(1, 51)}, seeds=10)
    assert (len(many), len(many.points)) == (100_000, 10_000)
    assert many.shards < 400
    # Two shapes of many runs are apart, as their batches are.
    two = make_plan(BASE.replace(epochs=200), grid={"m": [4, 8]}, seeds=5000)
    for k in range(two.shards):
        assert len({cfg.m for cfg in two.configs(two.runs_of(k))}) == 1
    few = make_plan(BASE, grid={"m": range(1, 17)})
    assert few.shards == len(few) == 16, "for several workers"
    engines = make_plan(BASE, grid={"engine": ["native", "gram"], "m": range(1, 11)})
    assert engines.shards == 2
    for k in range(engines.shards):
        assert len({cfg.engine for cfg in engines.configs(engines.runs_of(k))}) == 1


def test_a_short_sweep_is_cut_finely_and_a_long_one_is_not() -> None:
    short = make_plan(BASE.replace(n=100, m=50, epochs=200), seeds=1000)
    total = 1000 * run_seconds(short.points[0])
    assert short.shards == pytest.approx(total / LEAST_SECONDS, abs=1)
    long = make_plan(BASE.replace(n=100, m=50, epochs=200), seeds=100_000)
    expected = 100_000 * run_seconds(long.points[0]) / SHARD_SECONDS
    assert long.shards == pytest.approx(expected, rel=0.05)


def test_curves_of_a_shard_fit_into_memory() -> None:
    plan = make_plan(BASE.replace(n=2, m=1, epochs=10**6, evaluate_every=0), seeds=500)
    bytes_per_run = 16 * (10**6 + 1)
    assert max(len(plan.runs_of(k)) for k in range(plan.shards)) * bytes_per_run <= 2**28


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 17, 40])
def test_parts_of_an_array_cover_each_shard_once(count: int) -> None:
    plan = make_plan(BASE.replace(epochs=200), grid={"m": [4, 8], "n": [12, 20]}, seeds=100)
    assert 1 < plan.shards < 40
    parts = [chosen_shards(plan, (k, count)) for k in range(1, count + 1)]
    assert sorted(shard for part in parts for shard in part) == list(range(plan.shards))
    seconds = shard_seconds(plan)
    loads = [seconds[part].sum() for part in parts]
    assert max(loads) - min(loads) <= seconds.max(), "about equal work"
    assert all((np.diff(seconds[part]) <= 0).all() for part in parts), "the longest first"


def test_the_time_of_a_job_is_that_of_its_last_worker() -> None:
    """Three long runs on two jobs of four cores: the mean over cores would be 3/8 of a run."""
    plan = make_plan(BASE.replace(n=1000, m=512, epochs=1000), seeds=3)
    alone = run_seconds(plan.points[0])
    assert alone > SHARD_SECONDS
    assert job_seconds(plan, jobs=2, cores=4) == pytest.approx(alone)
    assert job_seconds(plan, jobs=2, cores=1) == pytest.approx(2 * alone)
    many = make_plan(BASE.replace(epochs=200), seeds=20_000)
    mean = shard_seconds(many).sum() / (3 * 2)
    assert mean <= job_seconds(many, jobs=3, cores=2) <= mean + shard_seconds(many).max()


def idle(plan: Plan, workers: int) -> float:
    """Share of the workers' time without work, where shards last as estimated."""
    seconds = shard_seconds(plan)
    free = [0.0] * workers
    for shard in chosen_shards(plan, None):
        heapq.heapreplace(free, free[0] + seconds[shard])
    return 1 - seconds.sum() / (workers * max(free))


def test_workers_are_busy_to_the_end() -> None:
    """Uneven settings, whose longest runs take a second."""
    base = TrainConfig(data="reduced", evaluate_every=20)
    widths = make_plan(base, grid={"m": [16, 4096]}, seeds=256)
    sizes = make_plan(base.replace(epochs=50), grid={"n": [20, 1500]}, seeds=256)
    for plan in (widths, sizes):
        assert idle(plan, 8) < 0.05
        assert idle(plan, 32) < 0.1

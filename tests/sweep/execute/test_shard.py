"""Runs of a shard that raise, beside those that do not: rows, errors, and how often runs train."""

from collections.abc import Sequence
from typing import Any

import pytest

from mmcl_fast import TrainConfig, train
from mmcl_fast.data.signal_noise import sampling
from mmcl_fast.data.signal_noise.sampling import sample, undrawable
from mmcl_fast.errors import DataError
from mmcl_fast.sweep import make_plan
from mmcl_fast.sweep.execute import shard
from mmcl_fast.sweep.execute.shard import compute

BASE = TrainConfig(n=6, d=60, m=4, epochs=3, n_test=10, data="reduced", evaluate_every=3)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of runs of each call of `train_many`."""
    sizes = []
    good = shard.train_many

    def counted(configs: Sequence[TrainConfig], **options: Any) -> list:
        sizes.append(len(configs))
        return good(configs, **options)

    monkeypatch.setattr(shard, "train_many", counted)
    return sizes


def refused(cfg: TrainConfig) -> str | None:
    try:
        sample(cfg)
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("negatives", [None, 2])
def test_runs_without_two_labels_leave_the_batch_whole(
    batches: list[int], negatives: int | None
) -> None:
    base = BASE.replace(negatives_per_sample=negatives, engine="gram" if negatives else "native")
    plan = make_plan(base, seeds=200)
    (rows,) = [compute(plan, k) for k in range(plan.shards)]
    configs = plan.configs(range(200))
    expected = [refused(cfg) for cfg in configs]
    failed = [k for k, error in enumerate(expected) if error]
    assert 3 < len(failed) < 100, "3 % of the runs have one label, 22 % fewer than two of one"
    assert undrawable(configs) == failed
    assert batches == [1] * len(failed) + [200 - len(failed)]
    assert sorted(rows.tracebacks) == failed
    for k, error in enumerate(expected):
        row = rows.table.slice(k, 1).to_pylist()[0]
        if error:
            assert (row["status"], row["loss"]) == ("failed", None)
            assert row["error"].endswith(error)
        elif k % 20 == 0:
            assert row["loss"] == train(configs[k]).loss.tolist()


@pytest.mark.parametrize("labels_at_once", [1, 20, 1 << 20])
def test_undrawable_runs_of_several_sizes(
    labels_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "CHUNK_LABELS", labels_at_once)
    configs = [
        BASE.replace(n=n, dtype=dtype, seed=seed)
        for n in (2, 6, 2)
        for dtype in ("float32", "float64")
        for seed in range(10)
    ]
    assert undrawable(configs) == [k for k, cfg in enumerate(configs) if refused(cfg)]
    assert undrawable([]) == []


def test_a_batch_that_raises_is_halved(batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(BASE.replace(n=12), seeds=64)
    monkeypatch.setattr(shard, "undrawable", lambda configs: [])
    good = shard.train_many

    def fails(configs: Sequence[TrainConfig], **options: Any) -> list:
        runs = good(configs, **options)
        if any(cfg.seed == 37 for cfg in configs):
            raise ArithmeticError("of one run")
        return runs

    monkeypatch.setattr(shard, "train_many", fails)
    rows = [compute(plan, k) for k in range(plan.shards)]
    assert [k for found in rows for k in found.tracebacks] == [37]
    assert max(batches) == 64
    assert len(batches) == 1 + 2 * 6, "a binary search"


def test_shapes_that_share_a_shard_train_by_shape(batches: list[int]) -> None:
    plan = make_plan(BASE.replace(n=12), grid={"eta": [0.1, 0.2], "m": range(1, 21)}, seeds=2)
    assert plan.shards == 1
    rows = compute(plan, 0)
    assert batches == [80], "one call, whose batches are of equal shapes"
    for k in range(0, 80, 7):
        assert rows.table["loss"][k].as_py() == train(plan.config(k)).loss.tolist()

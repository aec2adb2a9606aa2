"""`read_status`: progress from a store alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.errors import OutputError
from mmcl_fast.sweep import make_plan, read_status
from mmcl_fast.sweep.store.plan_file import write_plan
from mmcl_fast.sweep.store.store import Store
from tests.sweep.rewriting import rewrite

BASE = TrainConfig(n=12, d=60, m=4, epochs=4, n_test=10, data="reduced", evaluate_every=2)
PLAN = make_plan(BASE, grid={"m": [2, 3, 4, 5]}, seeds=5)


def test_before_during_and_after(tmp_path: Path, compute: Callable) -> None:
    with pytest.raises(OutputError, match=r"store: expected a directory with plan.parquet"):
        read_status(tmp_path)
    Store(tmp_path).prepare()
    write_plan(PLAN, tmp_path)
    found = read_status(tmp_path)
    assert (found.runs, found.done, found.shards, found.parts) == (20, 0, 4, 0)
    assert (found.rate, found.seconds_left, found.machines, found.counts) == (None, None, [], {})
    compute(PLAN, tmp_path, part=(1, 2))
    found = read_status(tmp_path)
    assert (found.done, found.parts, found.counts) == (10, 2, {"finished": 10})
    assert len(found.machines) == 1
    assert found.busy_seconds > 0
    compute(PLAN, tmp_path)
    found = read_status(tmp_path)
    assert (found.done, found.parts, found.counts) == (20, 4, {"finished": 20})
    assert (found.retried, found.put_away, found.bad, found.seconds_left) == (0, [], {}, 0.0)


def test_the_rate_is_that_of_the_last_ten_minutes(tmp_path: Path, compute: Callable) -> None:
    compute(PLAN, tmp_path)
    store = Store(tmp_path)
    for shard, finished in enumerate([0.0, 10_000.0, 10_100.0, 10_200.0]):
        rewrite(store.part(shard), finished=finished, attempt=1 + shard)
    found = read_status(tmp_path)
    assert found.rate == pytest.approx(10 / 200), "two parts of five runs after the first end"
    assert found.retried == 0 + 1 + 2 + 3
    store.part(3).unlink()
    found = read_status(tmp_path)
    assert found.rate == pytest.approx(5 / 100)
    assert found.seconds_left == pytest.approx(5 / 0.05)


def test_quarantined_shards(tmp_path: Path, compute: Callable) -> None:
    compute(PLAN, tmp_path, part=(1, 2))
    store = Store(tmp_path)
    with_rows = min(store.present())
    absent = min({0, 1, 2, 3} - set(store.present()))
    for shard in (with_rows, absent):
        store.quarantine_shard(shard, 5, "SIGKILL")
    (store.quarantine / "shard-x.json").write_text("")
    assert read_status(tmp_path).put_away == [absent], "the other shard has its rows"
    told = json.loads((store.quarantine / f"shard-{absent}.json").read_text())
    assert told == {"shard": absent, "deaths": 5, "reason": "SIGKILL"}
    result = compute(PLAN, tmp_path)
    assert (result.put_away, result.computed) == ([], 10)
    assert read_status(tmp_path).put_away == []


def test_machines_are_told_apart(tmp_path: Path, compute: Callable) -> None:
    compute(PLAN, tmp_path)
    store = Store(tmp_path)
    rewrite(store.part(1), environment={"gpu": "GPU 9"})
    rewrite(store.part(2), environment={})
    found = read_status(tmp_path)
    assert (len(found.machines), found.bad) == (3, {})
    assert "GPU 9" in found.machines


def test_a_damaged_setting_of_a_slow_part_is_named(tmp_path: Path, compute: Callable) -> None:
    """Footers are whole, and the settings of the slowest parts are read from their pages."""
    compute(PLAN, tmp_path)
    part = Store(tmp_path).part(0)
    rewrite(part, seconds=1e6)
    column = next(
        chunk
        for chunk in map(pq.ParquetFile(part).metadata.row_group(0).column, range(99))
        if chunk.path_in_schema == "m"
    )
    content = bytearray(part.read_bytes())
    content[column.data_page_offset - 1] ^= 0xFF  # the end of the page of its values
    part.write_bytes(content)
    found = read_status(tmp_path)
    assert (found.done, found.slowest) == (20, [])
    assert list(found.bad) == ["slowest runs"]
    assert "part-000000.parquet: expected an undamaged file" in found.bad["slowest runs"]

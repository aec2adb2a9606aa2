"""Parts with a right digest that are not of the plan, and parts of version 0.1.0, without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcl_fast import DamagedFileError, OutputError, TrainConfig
from mmcl_fast.sweep import load, make_plan, read_status
from mmcl_fast.sweep.store.schema import list_column
from mmcl_fast.sweep.store.store import Store
from tests.sweep.rewriting import rewrite, rewrite_without_digest

BASE = TrainConfig(n=12, d=60, m=4, epochs=6, n_test=10, data="reduced", evaluate_every=3)
PLAN = make_plan(BASE, grid={"m": [4, 8]}, seeds=3)
REWRITE = pytest.mark.parametrize("write", [rewrite, rewrite_without_digest])


@pytest.fixture
def store(tmp_path: Path, compute: Callable) -> Store:
    compute(PLAN, tmp_path)
    return Store(tmp_path)


def with_column(path: Path, name: str, values: pa.Array) -> pa.Table:
    table = pq.read_table(path)
    return table.set_column(table.column_names.index(name), name, values)


FORGED = {
    "equal ids": ("run_id", pa.array([0, 0, 0])),
    "ids of another shard": ("run_id", pa.array([0, 1, 2])),
    "ids beyond the plan": ("run_id", pa.array([3, 4, 10**9])),
    "no ids": ("run_id", pa.array([3, 4, None])),
    "type of ids": ("run_id", pa.array([3, 4, 5], pa.int32())),
    "a status of its own": ("status", pa.array(["finished", "hacked", "finished"])),
    "another number failed": ("status", pa.array(["finished", "failed", "finished"])),
    "type of a curve": ("loss", pa.array([[1, 2]] * 3, pa.list_(pa.int32()))),
    "type of a number": ("final_loss", pa.array([1, 2, 3], pa.float32())),
}


@REWRITE
@pytest.mark.parametrize(("name", "values"), FORGED.values(), ids=FORGED)
def test_rows_of_other_runs_are_named(
    store: Store, write: Callable, name: str, values: pa.Array
) -> None:
    path = store.part(1)
    write(path, with_column(path, name, values))
    columns = None if name == "run_id" else [name]
    with pytest.raises(DamagedFileError, match=r"^part-000001\.parquet: expected an undamaged"):
        load(store.path, columns)
    assert list(read_status(store.path, verify=True).bad) == [path.name]


@REWRITE
@pytest.mark.parametrize("name", ["eta", "n", "seed", "modality"])
def test_other_settings_are_found_by_status_verify(
    store: Store, write: Callable, name: str
) -> None:
    path = store.part(1)
    kind = pq.read_schema(path).field(name).type
    values = pa.array(["multi"] * 3 if name == "modality" else [7] * 3, kind)
    write(path, with_column(path, name, values))
    assert read_status(store.path).bad == {}
    bad = read_status(store.path, verify=True).bad
    assert list(bad) == [path.name]
    assert f"({name} of other runs than those of shard 1)" in bad[path.name]


METADATA = {
    "status": {"counts": {"hacked": 3}},
    "sum": {"counts": {"finished": 2}},
    "negative": {"counts": {"finished": 4, "failed": -1}},
    "fraction": {"counts": {"finished": 3.0}},
    "seconds": {"seconds": float("inf")},
    "finished": {"finished": float("nan")},
    "attempt": {"attempt": 0},
    "environment": {"environment": ["cpu"]},
    "version": {"environment": {"mmcl_fast": ["0.1.0"]}},
    "commit": {"commit": {"of": "what"}},
}


@REWRITE
@pytest.mark.parametrize("changes", METADATA.values(), ids=METADATA)
def test_impossible_metadata_are_named(store: Store, write: Callable, changes: dict) -> None:
    path = store.part(1)
    write(path, **changes)
    assert list(read_status(store.path).bad) == [path.name]
    with pytest.raises(DamagedFileError, match=r"^part-000001\.parquet: expected an undamaged"):
        load(store.path, ["m"])


def test_few_kilobytes_that_unpack_to_many_numbers(store: Store) -> None:
    path = store.part(1)
    curve = np.zeros(10**6, np.float32)
    kind = pq.read_schema(path).field("loss").type
    rewrite(path, with_column(path, "loss", list_column([curve, None, None], kind)))
    assert path.stat().st_size < 200_000
    bad = read_status(store.path).bad
    assert "1000002 values of loss.list.element in 3 rows of at most 7" in bad[path.name]


@REWRITE
def test_a_text_that_unpacks_to_megabytes(store: Store, write: Callable) -> None:
    path = store.part(1)
    write(path, with_column(path, "error", pa.array(["x" * (4 << 20), None, None])))
    assert "bytes when unpacked, where at most" in read_status(store.path).bad[path.name]


def test_parts_without_a_digest_load_and_are_checked_as_far_as_can_be(
    store: Store, compute: Callable
) -> None:
    before = load(store.path).to_pydict()
    for shard in (0, 1):
        rewrite_without_digest(store.part(shard))
    assert repr(load(store.path).to_pydict()) == repr(before)
    assert read_status(store.path, verify=True).bad == {}
    assert compute(PLAN, store.path).computed == 0
    path = store.part(1)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    named, random = [], np.random.default_rng(2)
    places = [random.integers(0, len(whole), 40), random.integers(footer, len(whole), 200)]
    # Of some footers pyarrow's description of a column ends the process: none is asked for.
    for place in np.concatenate(places).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            load(store.path)
        except OutputError as error:  # and nothing else
            named.append(str(error).partition(":")[0])
    assert set(named) == {path.name}


def test_the_types_of_a_plan_extended_to_float64(store: Store, compute: Callable) -> None:
    """Parts from before have float32 curves, and stay."""
    longer = make_plan(BASE, grid={"m": [4, 8], "dtype": ["float32", "float64"]}, seeds=3)
    assert compute(longer, store.path, extend=True).computed == 6
    assert load(store.path)["loss"].type == pa.list_(pa.float64())
    assert read_status(store.path, verify=True).bad == {}

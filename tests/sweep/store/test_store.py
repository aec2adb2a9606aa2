"""The store: whole parts, leftovers, and files that do not belong, each named."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.errors import ConfigError, DamagedFileError, DataError, OutputError
from mmcl_fast.sweep import Plan, load, make_plan, read_status
from mmcl_fast.sweep.execute.runner import disk_bytes
from mmcl_fast.sweep.execute.shard import compute as train_shard
from mmcl_fast.sweep.store import drivers
from mmcl_fast.sweep.store.parquet_file import KEY
from mmcl_fast.sweep.store.plan_file import PLAN_FILE
from mmcl_fast.sweep.store.schema import part_schema
from mmcl_fast.sweep.store.store import STALE_SECONDS, Store, part_info, provenance
from tests.sweep.disturbance import parts, same_parts
from tests.sweep.rewriting import rewrite

BASE = TrainConfig(n=12, d=60, m=4, epochs=6, n_test=10, data="reduced", evaluate_every=3)
PLAN = make_plan(BASE, grid={"m": [4, 8]}, seeds=3)


@pytest.fixture
def store(tmp_path: Path, compute: Callable) -> Store:
    compute(PLAN, tmp_path / "store")
    return Store(tmp_path / "store")


def test_what_is_in_a_store(store: Store) -> None:
    assert sorted(p.name for p in store.path.iterdir()) == ["parts", PLAN_FILE]
    assert sorted(store.present()) == list(range(PLAN.shards))
    info = part_info(store.part(0), PLAN)
    assert (info.shard, info.runs, info.attempt) == (0, 3, 1)
    assert info.counts == {"finished": 3}
    assert info.digest == PLAN.shard_digest(0)
    assert {"environment", "commit", "instruction_set"} <= set(info.provenance)
    assert abs(info.finished - time.time()) < 600


def test_a_part_has_every_setting_in_the_types_of_parquet(store: Store) -> None:
    """Other readers select settings of variants by name; Arrow's own schema takes 6 kB a part."""
    part = pq.read_table(store.part(0))
    assert b"ARROW:schema" not in pq.read_metadata(store.part(0)).metadata
    assert part["pair_noise"].to_pylist() == [0.0] * 3
    expected = part_schema("float32")
    assert part.schema.names == expected.names
    assert part.schema.types == expected.types
    held = load(store.path)
    rewrite(store.part(0))  # as earlier versions wrote it
    assert b"ARROW:schema" in pq.read_metadata(store.part(0)).metadata
    mixed = load(store.path)
    assert mixed.schema == held.schema
    assert repr(mixed.to_pylist()) == repr(held.to_pylist()), "NaN among them"


def test_publishing_again_changes_nothing(store: Store) -> None:
    before = parts(store.path)
    store.publish(PLAN, 0, train_shard(PLAN, 0), provenance(2))
    assert same_parts(parts(store.path), before)
    assert part_info(store.part(0), PLAN).attempt == 2
    assert not list(store.parts.glob(".*"))


def test_a_finished_sweep_computes_nothing(store: Store, compute: Callable) -> None:
    files = {p: p.stat().st_mtime_ns for p in store.parts.iterdir()}
    result = compute(PLAN, store.path)
    assert (result.computed, result.counts, result.put_away) == (0, {"finished": 6}, [])
    assert {p: p.stat().st_mtime_ns for p in store.parts.iterdir()} == files


def test_only_what_is_missing_is_computed(store: Store, compute: Callable) -> None:
    before = parts(store.path)
    kept = store.part(0).stat().st_mtime_ns
    store.part(1).unlink()
    assert compute(PLAN, store.path).computed == 3
    assert store.part(0).stat().st_mtime_ns == kept
    assert same_parts(parts(store.path), before)


def test_leftovers_of_dead_writers_are_removed_and_those_of_living_ones_kept(store: Store) -> None:
    store.failures.mkdir()
    store.quarantine.mkdir()
    (store.path / drivers.FOLDER).mkdir()
    stale = [
        store.parts / ".part-000001.parquet.abc.tmp",
        store.path / ".plan.parquet.abc.tmp",
        store.path / ".plan.lock",
        store.failures / ".run-7.txt.abc.tmp",
        store.quarantine / ".shard-7.json.abc.tmp",
        store.path / drivers.FOLDER / ".host-7.json.abc.tmp",
        # as version 0.1.0 named them
        store.parts / ".part-000001.abc.parquet",
        store.path / ".123.plan.parquet",
        store.path / ".plan.xyz.parquet",
        store.path / ".sweep.xyz.sbatch",
        store.failures / ".run-7.abc.txt",
    ]
    fresh = store.parts / ".part-000000.parquet.def.tmp"
    mine = store.path / ".git"
    folder = store.parts / ".part-x"
    for path in (*stale, fresh, mine):
        path.write_text("half")
    folder.mkdir()
    old = time.time() - STALE_SECONDS - 60
    for path in (*stale, mine, folder):
        os.utime(path, (old, old))
    store.prepare()
    assert not [path for path in stale if path.exists()]
    assert [path.exists() for path in (fresh, mine, folder)] == [True] * 3
    assert sorted(store.present()) == [0, 1], "temporary files are no parts"
    assert load(store.path).num_rows == 6


def test_the_age_of_a_leftover_is_by_the_clock_of_the_file_system(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node's clock, two days ahead, removes nothing of a writer that is at work."""
    fresh = store.parts / ".part-000000.parquet.def.tmp"
    fresh.write_text("half")
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + 2 * 24 * 3600)
    store.prepare()
    assert fresh.exists()


def test_no_pattern_for_parquet_matches_a_file_that_is_being_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB and polars, unlike a shell, match hidden files."""
    seen = []

    def replace(temporary: Path, final: Path) -> None:
        seen.extend(x.name for x in final.parent.iterdir() if x.name.endswith(".parquet"))
        os.rename(temporary, final)

    monkeypatch.setattr("mmcl_fast.files.write_atomically.__kwdefaults__", {"put": replace})
    store.publish(PLAN, 0, train_shard(PLAN, 0), provenance(1))
    assert sorted(seen) == ["part-000000.parquet", "part-000001.parquet"]


def test_a_leftover_that_vanishes_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process renames its temporary file between our listing and our look at it."""
    gone = store.parts / ".part-000001.parquet.abc.tmp"
    listing = Path.glob

    def glob(self: Path, pattern: str) -> list[Path]:
        found = list(listing(self, pattern))
        return [*found, gone] if self == store.parts else found

    monkeypatch.setattr(Path, "glob", glob)
    store.prepare()


FOREIGN = [
    "notes.txt",
    "part-1.parquet",
    "part-0000001.parquet",
    "part-000001.parquet.bak",
    "part-\N{SUPERSCRIPT TWO}00000.parquet",
    "Part-000001.parquet",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_no_part_is_named(store: Store, name: str, compute: Callable) -> None:
    (store.parts / name).write_text("x")
    for call in (lambda: load(store.path), lambda: compute(PLAN, store.path)):
        with pytest.raises(OutputError, match=r"expected a part of this store's plan") as refused:
            call()
        assert str(refused.value).startswith(f"{name}: ")
    assert list(read_status(store.path).bad) == [name]
    assert read_status(store.path).done == 6


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("not Parquet at all, but long enough to have a footer")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _swapped(path: Path) -> None:
    shutil.copy(path.parent / "part-000000.parquet", path)


def _without_metadata(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)


def _other_format(path: Path) -> None:
    rewrite(path, schema=99)


def _other_plan(path: Path) -> None:
    rewrite(path, digest="0" * 64)


def _odd_counts(path: Path) -> None:
    rewrite(path, counts=[1])


def _fewer_rows(path: Path) -> None:
    table = pq.read_table(path)
    rewrite(path, table.slice(0, 2), counts={"finished": 2})


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _by_another_program(path: Path) -> None:
    pq.write_table(pq.read_table(path), path)


def _without_digest(path: Path) -> None:
    table = pq.read_table(path)
    kept = {KEY: table.schema.metadata[KEY]}
    pq.write_table(table.replace_schema_metadata(kept), path)


DAMAGE = [
    (_cut, "expected an undamaged file, got a damaged one"),
    (_empty, "expected an undamaged file, got a damaged one"),
    (_text, "expected an undamaged file, got a damaged one"),
    (_folder, "expected an undamaged file, .*a directory, and no regular file"),
    (_fifo, "expected an undamaged file, .*a FIFO, and no regular file"),
    (_by_another_program, "expected an undamaged file, .*its metadata is not the one in it"),
    (_without_digest, "expected an undamaged file, .*its digest is gone"),
    (_swapped, "expected a part of this store's plan in .*, got shard 0 of 2"),
    (_without_metadata, "got one without metadata of mmcl-fast"),
    (_other_format, "got one of store format 99"),
    (_other_plan, "got the rows of another plan"),
    (_odd_counts, "expected an undamaged file, got a damaged one"),
    (_fewer_rows, "got 2 rows for 3 runs"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[d.__name__ for d, _ in DAMAGE])
def test_a_damaged_part_is_named_and_never_dropped(
    store: Store, compute: Callable, damage: Callable, message: str
) -> None:
    path = store.part(1)
    damage(path)
    for call in (lambda: load(store.path), lambda: compute(PLAN, store.path)):
        with pytest.raises(OutputError, match=message) as refused:
            call()
        assert str(refused.value).startswith("part-000001.parquet: ")
    found = read_status(store.path)
    assert (found.done, found.parts, list(found.bad)) == (3, 1, ["part-000001.parquet"])
    # Somebody else's part of an array does not stumble over it.
    assert compute(PLAN, store.path, part=(2, 2)).counts == {"finished": 3}
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert compute(PLAN, store.path).computed == 3


def test_every_changed_byte_of_a_part_is_named_by_whoever_reads_it(
    store: Store, compute: Callable
) -> None:
    path = store.part(1)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    random = np.random.default_rng(5)
    places = np.concatenate(
        [random.integers(0, footer, 40), random.integers(footer, len(whole), 40)]
    )
    for place in places.tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        for call in (
            lambda: load(store.path),
            lambda: load(store.path, ["m"]),
            lambda: compute(PLAN, store.path),
        ):
            with pytest.raises(DamagedFileError, match=r"^part-000001\.parquet: "):
                call()
        assert list(read_status(store.path, verify=True).bad) == [path.name]
        if place >= footer:
            assert list(read_status(store.path).bad) == [path.name]


@pytest.mark.parametrize("shard", [0, 1])
def test_parts_without_a_plan(store: Store, compute: Callable, shard: int) -> None:
    store.part(1 - shard).unlink()
    (store.path / PLAN_FILE).unlink()
    with pytest.raises(OutputError, match=r"store: expected plan.parquet beside the parts"):
        compute(PLAN, store.path)
    assert store.part(shard).exists()


def test_a_part_beyond_the_plan(store: Store, compute: Callable) -> None:
    shutil.copy(store.part(1), store.part(2))
    with pytest.raises(OutputError, match=r"part-000002.parquet: .*got shard 2 of 2"):
        compute(PLAN, store.path)


OTHER_PLANS = [
    (make_plan(BASE, grid={"m": [4, 16]}, seeds=3), "m: 8 only in the store, 16 only asked for"),
    (make_plan(BASE, grid={"m": [4, 8]}, seeds=4), "data_seed: 0 .. 2 in the store, 0 .. 3 asked"),
    (make_plan(BASE.replace(eta=1), grid={"m": [4, 8]}, seeds=3), "eta: 0.01 only in the store"),
]


@pytest.mark.parametrize(("plan", "message"), OTHER_PLANS, ids=["value", "seeds", "setting"])
def test_another_plan_is_refused(store: Store, compute: Callable, plan: Plan, message: str) -> None:
    before = (store.path / PLAN_FILE).read_bytes()
    with pytest.raises(ConfigError, match=message):
        compute(plan, store.path)
    assert (store.path / PLAN_FILE).read_bytes() == before


def test_an_extended_sweep_keeps_its_parts(store: Store, compute: Callable) -> None:
    old = {k: store.part(k).stat().st_mtime_ns for k in range(2)}
    longer = make_plan(BASE, grid={"m": [8, 4, 5]}, seeds=4)
    assert compute(longer, store.path, extend=True).computed == 6
    assert {k: store.part(k).stat().st_mtime_ns for k in range(2)} == old
    table = load(store.path)
    assert table["run_id"].to_pylist() == list(range(12))
    told = set(zip(table["m"].to_pylist(), table["seed"].to_pylist(), strict=True))
    assert told == {(m, seed) for m in (4, 5, 8) for seed in range(4)}
    # The longer plan is the store's now: the same command again, without and with --extend.
    assert compute(longer, store.path).computed == 0
    assert compute(longer, store.path, extend=True).computed == 0
    with pytest.raises(ConfigError, match="use another --out, or --extend"):
        compute(PLAN, store.path)


def test_paths_with_spaces_links_and_relative_ones(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a real place").mkdir()
    (tmp_path / "link").symlink_to("a real place")
    assert compute(PLAN, Path("link/über store")).computed == 6
    assert load("a real place/über store").num_rows == 6
    assert compute(PLAN, tmp_path / "a real place" / "über store").computed == 0


def test_places_that_cannot_be_a_store(tmp_path: Path, compute: Callable) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="out: expected a directory that can be written"):
            compute(PLAN, out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory(tmp_path: Path, compute: Callable) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="out: expected a directory that can be written"):
        compute(PLAN, tmp_path / "store")


def test_predictions_are_refused_before_anything_is_written(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmcl_fast.sweep.execute.runner.available_bytes", lambda: 450 << 20)
    with pytest.raises(DataError, match=r"memory: expected 3 workers .*take --workers 1"):
        compute(PLAN, tmp_path / "store", workers=3)
    assert not (tmp_path / "store").exists()
    monkeypatch.undo()
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(
        DataError, match=r"disk: expected 6 runs to fit into 0.00 MiB, got about 0.05 MiB"
    ):
        compute(PLAN, tmp_path / "store")
    assert not (tmp_path / "store" / PLAN_FILE).exists()


def test_the_estimate_of_the_disk_counts_files_as_well(tmp_path: Path, compute: Callable) -> None:
    """Of many shapes with a run each, nearly all of the store is footers."""
    plan = make_plan(BASE, grid={"m": range(2, 22)})
    compute(plan, tmp_path)
    used = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert used <= disk_bytes(plan) < 1.3 * used
    assert disk_bytes(plan, 1) > 17_000 + 9_000, "the last run's part, and the plan"


BAD_POLICIES = [
    ({"workers": 0}, "workers: expected an integer >= 1, got 0"),
    ({"max_deaths": 0}, "max_deaths: expected an integer >= 1, got 0"),
    ({"part": (0, 2)}, "shard: expected i/N with 1 <= i <= N, got 0/2"),
    ({"part": (3, 2)}, "shard: expected i/N with 1 <= i <= N, got 3/2"),
]


@pytest.mark.parametrize(("policy", "message"), BAD_POLICIES)
def test_bad_policies(tmp_path: Path, compute: Callable, policy: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compute(PLAN, tmp_path / "store", **policy)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("count", [2, 5])
def test_parts_of_an_array_make_the_whole(tmp_path: Path, compute: Callable, count: int) -> None:
    compute(PLAN, tmp_path / "whole")
    done = [
        compute(PLAN, tmp_path / "array", part=(k, count)).computed for k in range(1, count + 1)
    ]
    assert sum(done) == 6
    assert same_parts(parts(tmp_path / "array"), parts(tmp_path / "whole"))

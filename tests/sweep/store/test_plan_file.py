"""The plan's file while several processes read and replace it: nothing is lost, nothing fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.sweep import load, make_plan, read_status
from mmcl_fast.sweep.execute import runner
from mmcl_fast.sweep.store import plan_lock as lock_module
from mmcl_fast.sweep.store import plan_rows
from mmcl_fast.sweep.store.arrow_arrays import to_numpy
from mmcl_fast.sweep.store.plan_file import PLAN_FILE, read_outline, read_plan, write_plan
from mmcl_fast.sweep.store.plan_lock import LOCK, STALE_SECONDS, plan_lock
from mmcl_fast.sweep.store.schema import SETTING_TYPES
from tests.sweep.disturbance import DEADLINE_S, finish, start

BASE = TrainConfig(n=12, d=60, m=4, epochs=3, n_test=10, data="reduced", evaluate_every=3)
PLAN = make_plan(BASE, grid={"m": [4, 8]})


def extended(*values: int) -> runner.Plan:
    return make_plan(BASE, grid={"m": [4, 8, *values]})


def test_the_first_writer_wins_and_a_plan_is_replaced_only_by_who_has_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)  # as on a file system without hard links
    one, two = extended(5), extended(6)
    assert write_plan(PLAN, tmp_path)
    assert not write_plan(one, tmp_path)
    assert read_plan(tmp_path).digest == PLAN.digest
    assert write_plan(one, tmp_path, instead_of=PLAN.digest)
    assert not write_plan(two, tmp_path, instead_of=PLAN.digest)
    assert read_plan(tmp_path).digest == one.digest
    assert [p.name for p in tmp_path.iterdir()] == [PLAN_FILE]


def test_of_two_different_extensions_at_once_none_is_lost(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second reads the plan, the first replaces it, the second wants to replace it."""
    compute(PLAN, tmp_path)
    write, calls = runner.write_plan, []

    def overtaken(plan: runner.Plan, store: Path, **how: object) -> bool:
        if not calls:
            calls.append(plan)
            compute(extended(5), tmp_path, extend=True)
        return write(plan, store, **how)

    monkeypatch.setattr(runner, "write_plan", overtaken)
    with pytest.raises(
        ConfigError, match=r"m: 5 only in the store, 6 only asked for.*; .* or repeat --add"
    ):
        compute(extended(6), tmp_path, extend=True)
    assert sorted(load(tmp_path, ["m"])["m"].to_pylist()) == [4, 5, 8]
    # One that has the other's runs as well goes on from the other's plan.
    calls.clear()

    def overtaken_by_a_part(plan: runner.Plan, store: Path, **how: object) -> bool:
        if not calls:
            calls.append(plan)
            compute(extended(5, 7), tmp_path, extend=True)
        return write(plan, store, **how)

    monkeypatch.setattr(runner, "write_plan", overtaken_by_a_part)
    compute(extended(5, 6, 7), tmp_path, extend=True)
    table = load(tmp_path, ["run_id", "m"])
    assert sorted(table["m"].to_pylist()) == [4, 5, 6, 7, 8]
    assert table["run_id"].to_pylist() == [0, 1, 2, 3, 4]


def test_columns_of_a_plan_are_plain_whatever_is_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that only some have, one that is 0, one that each block has another value of,
    seeds of 64 bits that are no sequence.
    """
    monkeypatch.setattr(plan_rows, "BLOCK_ROWS", 12)
    seeds = [2**63, 0, 2**64 - 1]
    grid = {"m": [4, 8], "negatives_per_sample": [None, 3], "init_seed": seeds}
    plan = make_plan(BASE.replace(sigma_eps=-0.0), grid=grid, seeds=2)
    write_plan(plan, tmp_path)
    assert read_plan(tmp_path).digest == plan.digest
    table = pq.read_table(tmp_path / PLAN_FILE)
    runs = [plan.config(k) for k in range(len(plan))]
    for name, kind in SETTING_TYPES.items():
        assert table.schema.field(name).type == kind, name
        assert table[name].to_pylist() == [getattr(cfg, name) for cfg in runs], name


@pytest.mark.process
def test_a_plan_is_read_without_pandas(tmp_path: Path) -> None:
    """Where it is installed, pyarrow's conversions import it: a third of a second a command."""
    pytest.importorskip("pandas")
    write_plan(PLAN, tmp_path)
    code = "import sys; from mmcl_fast.sweep.store.plan_file import read_plan, Path\n"
    code += "read_plan(Path(sys.argv[1])); sys.exit('pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=DEADLINE_S)


@pytest.mark.parametrize("values", [[1, None], ["a"], [True, False]])
def test_what_is_no_column_of_numbers(values: list[object]) -> None:
    with pytest.raises(ValueError, match="nulls among values of type"):
        to_numpy(pa.array(values))


def test_a_plan_is_read_while_it_is_replaced(tmp_path: Path) -> None:
    """A file that is opened twice in one reading is a mixture, or gone, in some of the cases."""
    plans = [PLAN, extended(5)]
    write_plan(PLAN, tmp_path)
    done = threading.Event()

    def replace() -> None:
        for k in range(60):
            assert write_plan(plans[(k + 1) % 2], tmp_path, instead_of=plans[k % 2].digest)
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    known = {plan.digest for plan in plans}
    reads = 0
    while not done.is_set():
        assert read_plan(tmp_path).digest in known
        assert read_outline(tmp_path, runs=True).digest in known
        reads += 1
    writer.join()
    assert reads > 5


def test_writers_take_turns(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def take() -> None:
        for _ in range(20):
            with plan_lock(tmp_path) as held:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(1e-4)
                held()
                inside[0] -= 1

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / LOCK
    lock.write_text("a process that was killed")
    old = time.time() - STALE_SECONDS - 1
    os.utime(lock, (old, old))
    assert write_plan(PLAN, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [PLAN_FILE]


def test_the_lock_of_a_process_at_work_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "WAIT_SECONDS", 0.1)
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + 2 * 24 * 3600)  # this node's clock is ahead
    (tmp_path / LOCK).write_text("a process at work")
    with pytest.raises(OutputError, match=r"\.plan\.lock: expected no other process that replaces"):
        write_plan(PLAN, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [LOCK]


def test_a_process_that_stood_still_does_not_replace_the_plan(tmp_path: Path) -> None:
    """Its lock was taken for that of a killed one, and another process has one of its own."""
    with plan_lock(tmp_path) as held:
        old = time.time() - STALE_SECONDS - 1
        os.utime(tmp_path / LOCK, (old, old))
        with plan_lock(tmp_path) as held_by_the_other:
            with pytest.raises(OutputError, match="expected the lock of this process"):
                held()
            held_by_the_other()
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_created(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written"):
        write_plan(PLAN, tmp_path / "nowhere")


@pytest.mark.process
def test_two_commands_that_extend_one_store_at_once(tmp_path: Path) -> None:
    """One is refused, or has seen the other's runs; no run of either vanishes."""
    store = str(tmp_path / "store")
    small = ["--n", "12", "--m", "4", "--epochs", "2", "--data", "reduced", "--evaluate-every", "0"]
    small += ["--workers", "1", "--out", store]
    finish(start([*small, "--grid", "eta=0.01,0.02"]))
    both = [start([*small, "--grid", f"eta=0.01,0.02,{x}", "--extend"]) for x in (0.03, 0.04)]
    said = [process.communicate(timeout=DEADLINE_S)[1].decode() for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    refused = next(k for k in (0, 1) if both[k].returncode)
    assert "expected a plan with every run of the store" in said[refused]
    assert sorted(load(store, ["eta"])["eta"].to_pylist()) == [
        0.01,
        0.02,
        (0.03, 0.04)[1 - refused],
    ]
    finish(start([*small, "--grid", "eta=0.01,0.02,0.03,0.04", "--extend"]))
    assert read_status(store, verify=True).done == 4

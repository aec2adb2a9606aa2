"""Workers and drivers are killed at random: every row is there once, with the same bits."""

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcl_fast import sweep
from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import OutputError
from mmcl_fast.sweep.store.parquet_file import KEY
from tests.sweep.disturbance import PAPER, disturb, finish, parts, same_parts, start, wait_for_parts

pytestmark = pytest.mark.process

SMALL = ["--n", "60", "--m", "20", "--data", "reduced", "--evaluate-every", "50"]
SMALL += ["--grid", "modality=both", "--grid", "mu_norm=2,5", "--seeds", "150"]


def undisturbed(arguments: list[str], store: Path) -> Path:
    finish(start([*arguments, "--out", str(store)]))
    return store


def disturbed(arguments: list[str], store: Path) -> list[str]:
    return [*arguments, "--out", str(store), "--workers", "2", "--max-worker-failures", "1000"]


def check(store: Path, calm: Path, runs: int) -> None:
    ours, theirs = parts(store), parts(calm)
    assert len(theirs) >= 4
    assert same_parts(ours, theirs)
    table = sweep.load(store, ["run_id", "status"])
    assert table["run_id"].to_pylist() == list(range(runs))
    assert set(table["status"].to_pylist()) == {"finished"}
    assert sweep.read_status(store).done == runs


def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    command = [*PAPER, "--seeds", "120"]
    calm = undisturbed(command, tmp_path / "calm")
    hit = disturb(disturbed(command, tmp_path / "killed"), tmp_path / "killed", kills=4, pause=0.2)
    assert hit >= 3
    check(tmp_path / "killed", calm, runs=1200)
    assert sweep.read_status(tmp_path / "killed").retried > 0


@pytest.mark.slow
def test_twenty_kills_of_ten_thousand_runs(tmp_path: Path) -> None:
    command = [*PAPER, "--seeds", "1000"]
    calm = undisturbed(command, tmp_path / "calm")
    hit = disturb(disturbed(command, tmp_path / "killed"), tmp_path / "killed", kills=20, pause=1.0)
    assert hit == 20
    check(tmp_path / "killed", calm, runs=10_000)
    assert sweep.read_status(tmp_path / "killed").retried > 0


def test_a_comparison_of_stores_sees_one_bit() -> None:
    """The comparison above can fail."""
    table = pa.table({"loss": [[1.0, np.nan], [2.0]], "final_loss": [np.nan, 2.0]})
    other = table.set_column(1, "final_loss", pa.array([np.nan, np.nextafter(2.0, 3.0)]))
    assert same_parts({"a": table}, {"a": table.slice(0)})
    assert not same_parts({"a": table}, {"a": other})
    assert not same_parts({"a": table}, {"a": table, "b": table})


def test_a_shard_that_kills_its_workers_is_quarantined(tmp_path: Path, monkeypatch) -> None:
    """The others go on; the same command tries it again."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'mmcl_fast.sweep.execute.worker' in ' '.join(sys.orig_argv):\n"
        "    import mmcl_fast.sweep.execute.worker_pool as pool\n"
        "    compute = pool.compute\n"
        "    def deadly(plan, shard, **options):\n"
        "        if shard == 1:\n"
        "            os.kill(os.getpid(), 9)\n"
        "        return compute(plan, shard, **options)\n"
        "    pool.compute = deadly\n"
    )
    command = ["--n", "12", "--epochs", "4", "--data", "reduced"]
    command += ["--grid", "m=2,3,4", "--out", str(tmp_path / "s"), "--max-worker-failures", "2"]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = finish(start(command), expected=1)
    assert "shard 1 quarantined after 2 worker deaths (SIGKILL (out of memory?))" in said
    assert sweep.load(tmp_path / "s", ["m"])["m"].to_pylist() == [2, 4]
    found = sweep.read_status(tmp_path / "s")
    assert (found.put_away, found.done) == ([1], 2)
    monkeypatch.delenv("PYTHONPATH")
    finish(start(command))
    assert sweep.read_status(tmp_path / "s").put_away == []
    assert sweep.load(tmp_path / "s", ["m"])["m"].to_pylist() == [2, 3, 4]


def test_workers_that_cannot_start_end_the_sweep(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit(3)\n")
    plan = sweep.make_plan(TrainConfig(n=12, m=4, epochs=2, data="reduced"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(OutputError, match=r"expected processes that start, got 3 in a row"):
        sweep.run_sweep(plan, tmp_path / "s")


def test_interrupting_stops_the_workers_and_keeps_the_parts(tmp_path: Path) -> None:
    store = tmp_path / "s"
    # Far more runs than are done before a signal arrives on a loaded machine.
    driver = start([*SMALL, "--seeds", "10000", "--out", str(store)])
    wait_for_parts(store, 1, driver)
    driver.send_signal(signal.SIGINT)
    assert "interrupted" in finish(driver, expected=130)
    assert not list((store / "parts").glob(".*")), "a stopped worker removes what it was writing"
    there = sweep.read_status(store)
    assert 0 < there.done < 40_000
    assert not there.bad


def test_parts_say_how_often_they_were_tried(tmp_path: Path) -> None:
    undisturbed([*SMALL, "--seeds", "1", "--epochs", "3"], tmp_path / "s")
    for path in (tmp_path / "s" / "parts").iterdir():
        told = json.loads(pq.read_metadata(path).metadata[KEY])
        assert told["attempt"] == 1
        assert {"torch", "pyarrow", "cpu"} <= set(told["environment"])


def test_two_drivers_on_one_store_agree(tmp_path: Path) -> None:
    command = [*SMALL, "--seeds", "20", "--out", str(tmp_path / "s"), "--workers", "1"]
    drivers: list[subprocess.Popen[bytes]] = [start(command) for _ in range(2)]
    for driver in drivers:
        finish(driver)
    calm = undisturbed([*SMALL, "--seeds", "20"], tmp_path / "calm")
    assert same_parts(parts(tmp_path / "s"), parts(calm))

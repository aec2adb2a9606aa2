"""Workers that die while they start: retried for each of them, and given up with one sentence."""

import os
import signal
from pathlib import Path

import pytest

from mmcl_fast import TrainConfig, sweep
from mmcl_fast.errors import OutputError
from mmcl_fast.sweep.execute import local_pool
from mmcl_fast.sweep.execute.worker_process import cause
from tests.sweep.disturbance import finish, start

TINY = TrainConfig(n=12, m=4, epochs=2, data="reduced")


def dying_starts(folder: Path, count: int, number: int) -> None:
    """Let the first `count` workers die of a signal before they load anything."""
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'mmcl_fast.sweep.execute.worker' in sys.orig_argv:\n"
        f"    log = open({str(folder / 'starts')!r}, 'a')\n"
        "    log.write('.')\n"
        "    log.flush()\n"
        f"    if log.tell() <= {count}:\n"
        f"        os.kill(os.getpid(), {number})\n"
    )


@pytest.mark.process
def test_killed_starts_count_for_each_worker(tmp_path: Path, monkeypatch) -> None:
    """More than one of them may have in a row, over two; of a signal that has no name."""
    killed = local_pool.KILLED_STARTS + 4
    dying_starts(tmp_path, killed, signal.SIGRTMIN + 1)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(local_pool, "LONGEST_BACK_OFF_SECONDS", 0.1)
    plan = sweep.make_plan(TINY, grid={"m": [2, 3]})
    result = sweep.run_sweep(plan, tmp_path / "s", policy=sweep.Policy(workers=2))
    assert result.counts == {"finished": 2}
    assert (tmp_path / "starts").stat().st_size == killed + 2
    assert sweep.read_status(tmp_path / "s").retried == 0, "no shard was computed twice"


@pytest.mark.process
def test_a_worker_that_is_always_killed_ends_the_sweep(tmp_path: Path, monkeypatch) -> None:
    dying_starts(tmp_path, 1000, signal.SIGKILL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(local_pool, "LONGEST_BACK_OFF_SECONDS", 0.1)
    message = r"expected processes that start, got 10 in a row that did not \(SIGKILL"
    with pytest.raises(OutputError, match=message):
        sweep.run_sweep(sweep.make_plan(TINY), tmp_path / "s", policy=sweep.Policy(workers=1))


@pytest.mark.process
def test_an_instruction_set_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    environment = os.environ | {"MMCL_CPU_TARGET": "bogus"}
    command = ["--n", "12", "--m", "4", "--epochs", "2", "--data", "reduced"]
    said = finish(start([*command, "--out", str(tmp_path / "s")], env=environment), expected=2)
    assert said.startswith("mmcl: error: MMCL_CPU_TARGET: expected one of auto, ")
    assert said.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_causes_in_words() -> None:
    assert cause(3) == "exit status 3"
    assert cause(-signal.SIGSEGV) == "SIGSEGV"
    assert cause(-signal.SIGKILL) == "SIGKILL (out of memory?)"
    assert cause(-35) == "signal 35"

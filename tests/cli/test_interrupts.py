"""Ctrl-C and termination: one line, no traceback, and the command that goes on."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mmcl_fast import TrainConfig, cli, train
from mmcl_fast.cli.checks import CHECKPOINT
from mmcl_fast.cli.command_line import run
from mmcl_fast.cli.commands.table1 import PARTIAL
from mmcl_fast.training import tensor_file
from tests.cli.test_table1_command import SMALL
from tests.support.digits import write_digits
from tests.sweep.disturbance import PAPER, start

DEADLINE_S = 120.0


def test_while_modules_load(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    class Interrupts:
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "mmcl_fast.cli.command_line":
                raise KeyboardInterrupt

    importlib.import_module("mmcl_fast.cli.command_line")  # monkeypatch puts it back
    monkeypatch.delitem(sys.modules, "mmcl_fast.cli.command_line")
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    with pytest.raises(SystemExit) as stop:
        cli.main(["info"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "mmcl: interrupted\n"


@pytest.fixture(params=[signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that ends a process, even where the tests are run by nohup, which ignores one."""
    before = signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, before)


def test_a_terminated_run_continues(
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """The signal arrives while the fourth checkpoint is written, which leaves the third."""
    write, written = tensor_file.write_atomically, []

    def signalled(path: Path, save: Callable[[Path], object]) -> Path:
        def and_then(temporary: Path) -> None:
            save(temporary)
            if len(written) == 3:
                os.kill(os.getpid(), number)

        write(path, and_then)
        written.append(path)
        return path

    handler = signal.getsignal(number)
    monkeypatch.setattr(tensor_file, "write_atomically", signalled)
    settings = ["--n", "20", "--d", "30", "--m", "4", "--epochs", "6"]
    command = ["train", *settings, "--checkpoint-every", "1", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        run(command)
    assert stop.value.code == 128 + number
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"mmcl: ended by {number.name}; resume with: mmcl ")
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT], "no temporary file"
    assert signal.getsignal(number) is handler
    monkeypatch.setattr(tensor_file, "write_atomically", write)
    assert run(command) == 0
    with np.load(tmp_path / "curves.npz") as file:
        assert file["loss"].tolist() == train(TrainConfig(n=20, d=30, m=4, epochs=6)).loss.tolist()


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
@pytest.mark.parametrize("name", ["figure1", "table1"])
def test_an_experiment_ends_as_by_an_interrupt(
    name: str, number: signal.Signals, tmp_path: Path
) -> None:
    """Slurm sends SIGTERM: the command says so, keeps what is finished, leaves no partial file."""
    digits, out = write_digits(tmp_path / "digits", 600, 200), tmp_path / "out"
    flags = {
        "figure1": ["--epochs", "100000", "--engine", "gram"],
        "table1": ["--data", str(digits), "--seeds", "500", "--arms", "supervised", *SMALL],
    }[name]
    started = {"figure1": out, "table1": out / PARTIAL}[name]
    command = [sys.executable, "-m", "mmcl_fast.cli", name, *flags, "--out", str(out)]
    before = signal.signal(number, signal.SIG_DFL)  # as above: nohup's is inherited
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(number, before)
    end = time.monotonic() + DEADLINE_S
    while not started.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=DEADLINE_S)
    said = error.decode()
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    resumes = "; resume with: mmcl table1 --data" if name == "table1" else "\n"
    assert f"mmcl: ended by {number.name}{resumes}" in said
    assert [path.name for path in out.iterdir()] == ([PARTIAL] if name == "table1" else [])


@pytest.mark.process
def test_a_second_one_disturbs_nothing(tmp_path: Path) -> None:
    """As a terminal sends them: to the whole group, while workers may still load torch."""
    for wait in (0.0, 0.5, 2.0):
        store = tmp_path / f"store{wait}"
        arguments = [*PAPER, "--seeds", "5000", "--workers", "2", "--out", str(store)]
        process = start(arguments, start_new_session=True)
        end = time.monotonic() + DEADLINE_S
        while not (store / "plan.parquet").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(wait)
        for _ in range(3):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.01)
        _, error = process.communicate(timeout=DEADLINE_S)
        said = error.decode()
        assert process.returncode == 130, said
        assert "Traceback" not in said
        assert said.splitlines()[-1].startswith("mmcl: interrupted; resume with: mmcl sweep --data")


@pytest.mark.process
def test_symbols_that_a_terminal_lacks_are_letters(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "mmcl_fast.cli", "figure1", "--seeds", "1", "--epochs", "2"]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(command, check=True, env=environment, capture_output=True)
    said = done.stdout.decode("ascii")
    assert "->" in said
    assert "+-" in said
    assert "?" not in said


@pytest.mark.process
def test_a_home_that_cannot_be_written_adds_no_lines() -> None:
    command = [sys.executable, "-m", "mmcl_fast.cli", "figure1", "--out", "/proc/nothing"]
    environment = os.environ | {"HOME": "/proc/nowhere"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.stderr.count("\n") == 1

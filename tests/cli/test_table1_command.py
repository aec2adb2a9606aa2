"""`mmcl table1` from the command line, on digits of the test's own and on MNIST where there is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from mmcl_fast.cli.command_line import run
from mmcl_fast.cli.commands import table1 as command
from mmcl_fast.experiments.table1 import experiment
from mmcl_fast.experiments.table1.protocol import ARMS
from tests.support.digits import NAMES, write_digits

SMALL = [
    *("--images", "300", "--epochs", "1", "--batch", "50", "--pixels", "every_second"),
    *("--few-labels", "60", "--probe-iterations", "20", "--checksums", "none"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"), 600, 200)


def test_it_leaves_its_three_files(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new" / "out"
    assert run(["table1", "--data", str(folder), "--out", str(out), "--seeds", "2", *SMALL]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["table1.json", "table1.md", "table1.png"]
    found = json.loads((out / "table1.json").read_text())
    assert set(found) == {"config", "environment", "colour_only", *ARMS}
    assert found["config"]["seeds"] == [0, 1]
    for arm, readout in (("multi", "zero_shot"), ("multi", "probe"), ("single", "probe")):
        for kind in ("train", "id", "rand", "rev"):
            value = found[arm][readout][kind]
            assert value["mean"] == pytest.approx(np.mean(value["per_seed"]), rel=1e-12)
    assert (out / "table1.png").read_bytes().startswith(b"\x89PNG")
    assert "| **single-modal** | **paper** | 88.43 |" in (out / "table1.md").read_text()
    said = capsys.readouterr().out
    assert "82.13" in said


def test_an_interrupted_command_continues(
    folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    line = ["table1", "--data", str(folder), "--out", str(tmp_path / "a"), "--seeds", "1", *SMALL]
    line += ["--workers", "1", "--arms", "supervised", "multi"]
    real = experiment.run_job
    ran = []

    def run_once(digits, cfg, job, device, on_step):
        ran.append(job)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return real(digits, cfg, job, device, on_step)

    monkeypatch.setattr(experiment, "run_job", run_once)
    assert run(line) == 130
    assert [p.name for p in (tmp_path / "a").iterdir()] == [command.PARTIAL]
    changed = [v if v != "300" else "301" for v in line]
    assert run(changed) == 2
    assert "expected images = 301, got an unfinished run with 300" in capsys.readouterr().err
    other = write_digits(tmp_path / "other", 601, 200)
    assert run([*line[:2], str(other), *line[3:]]) == 2
    assert "expected md5 = " in capsys.readouterr().err
    assert run(line) == 0
    assert ran == [("supervised", 0), ("multi", 0), ("multi", 0)]
    assert "resuming: 1 of 2 jobs are done" in capsys.readouterr().err
    assert not (tmp_path / "a" / command.PARTIAL).exists()
    whole = [*line[:4], str(tmp_path / "b"), *line[5:]]
    assert run(whole) == 0
    one, two = (json.loads((tmp_path / k / "table1.json").read_text()) for k in "ab")
    assert one == two
    for name in ("table1.md", "table1.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_download_comes_before_reading(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def fetch(target: Path, on_bytes) -> None:
        write_digits(target)
        on_bytes("train-images-idx3-ubyte.gz", 5)
        on_bytes("train-images-idx3-ubyte.gz", 9)

    monkeypatch.setattr(command, "fetch_digits", fetch)
    line = ["table1", "--data", str(tmp_path / "x"), "--out", str(tmp_path / "y"), *SMALL]
    assert run([*line, "--download", "--seeds", "1", "--arms", "supervised"]) == 0
    assert capsys.readouterr().err.count("downloading train-images-idx3-ubyte.gz") == 1


def test_mistakes_are_one_line_and_status_2(folder: Path, tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "out")]
    data = ["--data", str(folder)]
    for rest, message in (
        ([*data, "--seeds", "0"], "seeds: expected an integer >= 1, got 0"),
        ([*data, "--arms", "multi", "multi"], "arms: expected each once, got 'multi multi'"),
        ([*data, "--arms", "clip"], "--arms: expected one of multi, single, single_full, two_head"),
        ([*data, "--noise", "1"], "--noise: expected an option of mmcl table1"),
        ([*data, "--threads", "2"], "--threads: renamed, expected --workers"),
        ([*data, "--workers", "0"], "workers: expected an integer in 1 .. 4096, got 0"),
        ([*data, "--epochs", "0"], "epochs: expected an integer in 1 .. "),
        ([*data, "--colour-noise", "1.5"], "colour_noise: expected a number in [0, 1], got 1.5"),
        ([*data, "--images", "601", "--checksums", "none"], "at most the 600 training images"),
        ([*data], "expected the content of train-images-idx3-ubyte.gz with MD5 6bbc9ace"),
        (["--data", str(tmp_path)], "data: expected train-images-idx3-ubyte.gz, train-labels"),
        ([], "--data: expected PATH, got none"),
    ):
        assert run(["table1", *rest, *out]) == 2, message
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("mmcl: error: ")
        assert error.count("\n") == 1
        assert "Traceback" not in error


def test_colour_alone_needs_no_training(folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    def train(*_):
        raise AssertionError

    monkeypatch.setattr(experiment, "run_job", train)
    line = ["table1", "--data", str(folder), "--out", str(tmp_path), "--seeds", "2", *SMALL]
    line += ["--colour-only", "--tied", "first_two", "--noise-to", "any"]
    assert run(line) == 0
    assert [p.name for p in tmp_path.iterdir()] == [command.COLOUR_ONLY]
    found = json.loads((tmp_path / command.COLOUR_ONLY).read_text())
    assert (found["config"]["tied"], found["config"]["seeds"]) == ("first_two", [0, 1])
    sampled = found["colour_only"]["sampled"]
    value = sampled["rev_0_vs_1"]
    assert value["mean"] == pytest.approx(np.mean(value["per_seed"]), rel=1e-12)
    said = capsys.readouterr().out
    assert "88.43" in said
    assert f"{found['colour_only']['law']['train_0_vs_1']:.1f}" in said
    for rest, message in (
        (["--quick"], "quick: expected none with --colour-only, which trains nothing, got True"),
        (["--arms", "multi"], "arms: expected none with --colour-only"),
        (["--workers", "1"], "workers: expected none with --colour-only"),
        (["--device", "cpu"], "device: expected none with --colour-only"),
        (["--images", "601"], "images: expected at most the 600 training images"),
    ):
        assert run([*line, *rest]) == 2, message
        assert message in capsys.readouterr().err


def test_a_missing_device_is_named(folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(command.torch.cuda, "is_available", lambda: False)
    line = ["table1", "--data", str(folder), "--out", str(tmp_path), "--device", "cuda", *SMALL]
    assert run(line) == 2
    assert "device cuda: expected a CUDA device, got none" in capsys.readouterr().err


def test_quick_trains_the_two_arms_of_the_paper_once(folder: Path, tmp_path: Path) -> None:
    line = ["table1", "--data", str(folder), "--out", str(tmp_path), "--quick", *SMALL]
    assert run(line) == 0
    found = json.loads((tmp_path / "table1.json").read_text())
    assert found["config"]["seeds"] == [0]
    assert found["config"]["arms"] == ["multi", "single"]


def test_quick_on_mnist_takes_less_than_a_minute(tmp_path: Path) -> None:
    folder = os.environ.get("MMCL_MNIST")
    if not folder:
        pytest.skip("MMCL_MNIST names no folder with the genuine MNIST files")
    started = time.process_time()
    assert run(["table1", "--data", folder, "--out", str(tmp_path), "--quick"]) == 0
    # Processor time of all threads, so that the neighbours' load does not count.
    assert time.process_time() - started < 60
    found = json.loads((tmp_path / "table1.json").read_text())
    gap = found["multi"]["zero_shot"]["rev"]["mean"] - found["single"]["probe"]["rev"]["mean"]
    assert gap > 40


def test_the_names_of_the_files_are_those_of_mnist() -> None:
    from mmcl_fast.data.mnist.files import FILES

    assert {key: file.name for key, file in FILES.items()} == NAMES

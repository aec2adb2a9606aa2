"""What was once accepted in silence, left something behind, or waited for torch to be refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmcl_fast import TrainConfig, train
from mmcl_fast.bench import run as bench_run
from mmcl_fast.cli.checks import CHECKPOINT
from mmcl_fast.cli.command_line import run
from mmcl_fast.config import FIELD_NAMES
from mmcl_fast.names import nearest
from mmcl_fast.sweep.execute import ray_pool
from mmcl_fast.training import checkpoint, tensor_file

SMALL = ["--n", "20", "--d", "30", "--m", "4", "--epochs", "6"]
# Each is refused by what was typed alone.
AT_ONCE = {
    "train --out=": "--out: expected a path, got ''",
    "train --lr 1": "--lr: expected an option of mmcl train (did you mean --eta?)",
    "train --activation 2": "--activation: expected an option of mmcl train (did you mean --q?)",
    "train --sgd": "--sgd: expected an option of mmcl train; mmcl train --help",
    "train --m 1.5e0": "--m: expected an integer, got '1.5e0'",
    "train --m 1e17": "--m: expected an integer, got '1e17'",
    "train --eta 0": "eta: expected a finite number > 0",
    "train --checkpoint-every=-1": "checkpoint_every: expected an integer >= 0, got -1",
    "train --negatives-per-sample 100": "negatives_per_sample: expected at most n - 1 = 99",
    "trian": "trian: expected a command (did you mean train?): figure1,",
    "figure1 --epochs 0": "epochs: expected an integer >= 1, got 0",
    "figure1 --seeds 0": "seeds: expected an integer >= 1, got 0",
    "phase --workers 0": "workers: expected an integer >= 1, got 0",
    "bench --peers": "--peers: expected at least one argument",
    "bench --json .": "json: expected a file, got the directory '.'",
    "bench --json file/below": "json: expected a file in a directory, got 'file/below'",
    "bench nothing": "operations: expected some of loss, train,",
    "table1 --data x --seeds 0": "seeds: expected an integer >= 1, got 0",
    "theory --checks signs signs": "checks: expected each once, got 'signs signs'",
    "theory --seeds 1": "seeds: expected an integer >= 2 (for a spread), got 1",
    "status nowhere": "store: expected a directory with plan.parquet, got 'nowhere'",
    "sweep --grid mm=1 --out x": "mm: unknown setting; did you mean m?",
    "sweep --grid m=1 --m 2 --out x": "m: expected one value or an axis of m, got --m too",
    "sweep --shard 3/2 --out x": "shard: expected i/N with 1 <= i <= N, got 3/2",
    "sweep --workers 0 --out x": "workers: expected an integer >= 1, got 0",
    "sweep --grid loss=1 --out x": "loss: unknown setting; nearest: classes, noise_start, "
    "label_noise; mmcl train --help lists all, beside snr, n_snr2, c_mu, noise_rate, noise_start",
    "sweep --add m=3 --out x": "store: expected a directory with plan.parquet, got 'x'",
    "sweep --add m=3 --n 4 --out x": "n: expected none with --add, which takes the plan's",
}


def test_mistakes_are_told_before_torch_loads(tmp_path: Path) -> None:
    code = (
        "import json, sys; from mmcl_fast.cli.command_line import run\n"
        "def first(line):\n"
        "    assert run(line) == 2, line\n"
        "    return 'torch' in sys.modules\n"
        f"print([line for line in {list(AT_ONCE)!r} if first(line.split())])"
    )
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    said = done.stderr.splitlines()
    assert len(said) == len(AT_ONCE)
    for line, expected in zip(said, AT_ONCE.values(), strict=True):
        assert line.startswith(f"mmcl: error: {expected}")
    assert done.stdout == "[]\n", "these had loaded torch"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("lr", "eta"), ("activation", "q"), ("width", "m"), ("sigma0", "sigma_0"), ("nn", "n"),
     ("snr", None), ("momentun", "momentum"), ("weight", "weight_decay"), ("zzz", None)],
)  # fmt: skip
def test_the_nearest_setting(word: str, meant: str | None) -> None:
    assert nearest(word, FIELD_NAMES) == meant


def test_whole_numbers_are_integers(tmp_path: Path) -> None:
    typed = ["--n", "2e1", "--d", "3e1", "--m", "4.0", "--epochs", "1e0", "--out", str(tmp_path)]
    assert run(["train", *typed]) == 0
    config = json.loads((tmp_path / "run.json").read_text())["config"]
    assert [config[name] for name in ("n", "d", "m", "epochs")] == [20, 30, 4, 1]


def test_more_negatives_than_a_label_has(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["train", *SMALL, "--negatives-per-sample", "15", "--out", str(tmp_path / "run")]
    assert run(command) == 2
    assert "expected at most 6, the samples of the rarer label that seed 0" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_a_run_of_other_settings_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["train", *SMALL, "--out", str(tmp_path)]
    assert run(command) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run([*command, "--eta", "0.02"]) == 2
    assert "got one with eta = 0.01 instead of 0.02 in" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert run(command) == 0, "the same settings are the same run"
    assert run([*command, "--eta", "0.02", "--overwrite"]) == 0
    (tmp_path / "run.json").write_text("{}")
    assert run(command) == 2
    assert "out: expected a directory without run.json or with" in capsys.readouterr().err


def test_no_picture_of_no_epochs(tmp_path: Path) -> None:
    assert run(["train", *SMALL, "--epochs", "0", "--out", str(tmp_path)]) == 0
    assert not (tmp_path / "curves.png").exists()
    with np.load(tmp_path / "curves.npz") as file:
        assert file["loss"].shape == (1,)


def test_a_long_run_keeps_a_checkpoint_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A minute goes by at every look at the clock; the run is interrupted at its fifth epoch."""
    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: float(next(clock)))
    written = []
    write = tensor_file.write_atomically

    def stop(path: Path, save: object) -> Path:
        written.append(path)
        if len(written) == 5:
            raise KeyboardInterrupt
        return write(path, save)

    monkeypatch.setattr(tensor_file, "write_atomically", stop)
    command = ["train", *SMALL, "--out", str(tmp_path)]
    assert run(command) == 130
    said = capsys.readouterr().err
    assert "mmcl: interrupted; resume with: mmcl train --n 20 --d 30" in said
    assert (tmp_path / CHECKPOINT).exists()
    monkeypatch.setattr(tensor_file, "write_atomically", write)
    assert run(command) == 0
    assert not (tmp_path / CHECKPOINT).exists()
    with np.load(tmp_path / "curves.npz") as file:
        assert file["loss"].tolist() == train(TrainConfig(n=20, d=30, m=4, epochs=6)).loss.tolist()
    # Without one, nothing can be resumed, and nothing is promised.
    monkeypatch.setattr(tensor_file, "write_atomically", stop)
    assert run([*command, "--checkpoint-every", "0"]) == 0
    assert not (tmp_path / CHECKPOINT).exists()


def test_ray_that_is_not_there_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(ray_pool, "find_spec", lambda name: None)
    store = tmp_path / "store"
    assert run(["sweep", *SMALL, "--executor", "ray", "--out", str(store)]) == 2
    assert "executor ray: expected the package ray" in capsys.readouterr().err
    assert not store.exists()


def test_operations_without_a_peer_are_a_table(capsys: pytest.CaptureFixture) -> None:
    settings = {"rounds": 3, "threads": "default"}
    rows = [
        {"op": "peer", "variant": "eager", "version": "1", "skipped": None},
        {"op": "startup", "variant": "mmcl --help", "settings": settings, "wall_ms": {"p50": 86.5}},
        {"op": "sizes", "variant": "mmcl_fast", "settings": {"axis": "N", "value": 256},
         "cpu_ms": {"p50": 1.25}, "times eager": 3.0},
    ]  # fmt: skip
    bench_run.report(rows, [], 1.0)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["startup", "mmcl", "--help", "86.5"] in lines
    assert ["sizes", "axis=N", "value=256", "mmcl_fast", "1.25"] in lines

"""The command line: what each command leaves behind, and one clear line for every mistake."""

import contextlib
import csv
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from mmcl_fast.cli.command_line import run
from mmcl_fast.cli.options import COMMANDS, Sweep, Table1, Train
from mmcl_fast.cli.parser import build, parse
from mmcl_fast.config_presets import PRESETS

QUICK = ["--epochs", "6"]


def test_figure1_leaves_its_three_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["figure1", "--seeds", "2", "--out", str(tmp_path), *QUICK]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "figure1.json",
        "figure1.pdf",
        "figure1.png",
    ]
    found = json.loads((tmp_path / "figure1.json").read_text())
    assert found["epochs"] == list(range(7))
    assert found["config"]["engine"] == "native"
    assert found["config"]["seeds"] == [0, 1]
    for modality in ("single", "multi"):
        assert set(found[modality]) == {"loss", "ood_accuracy", "signal", "noise"}
        for curve in found[modality].values():
            assert {k: np.shape(v) for k, v in curve.items()} == {
                "mean": (7,),
                "sd": (7,),
                "per_seed": (2, 7),
            }
            np.testing.assert_allclose(np.mean(curve["per_seed"], 0), curve["mean"], rtol=1e-12)
            np.testing.assert_allclose(np.std(curve["per_seed"], 0, ddof=1), curve["sd"], rtol=1e-9)
    assert {"torch", "cpu", "mmcl_fast"} <= set(found["environment"])
    said = capsys.readouterr().out
    assert "paper" in said
    assert (tmp_path / "figure1.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figure1.pdf").read_bytes().startswith(b"%PDF")


def test_figure1_leaves_its_data(tmp_path: Path) -> None:
    assert run(["figure1", "--seeds", "2", "--data", "--out", str(tmp_path), *QUICK]) == 0
    found = json.loads((tmp_path / "figure1.json").read_text())
    with (tmp_path / "figure1.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 2 * 7
    for modality in ("single", "multi"):
        for name in ("loss", "ood_accuracy", "signal", "noise"):
            for seed, curve in enumerate(found[modality][name]["per_seed"]):
                ours = [
                    float(row[name])
                    for row in rows
                    if (row["modality"], int(row["seed"])) == (modality, seed)
                ]
                assert ours == curve


@pytest.mark.parametrize("engine", ["gram", "primal", "reference"])
def test_figure1_curves_do_not_depend_on_the_engine(engine: str, tmp_path: Path) -> None:
    common = ["figure1", "--seeds", "1", "--dtype", "float64", *QUICK]
    assert run([*common, "--engine", engine, "--out", str(tmp_path / "a")]) == 0
    assert run([*common, "--engine", "reference", "--out", str(tmp_path / "b")]) == 0
    ours, exact = (json.loads((tmp_path / k / "figure1.json").read_text()) for k in "ab")
    for modality in ("single", "multi"):
        for name, curve in exact[modality].items():
            np.testing.assert_allclose(
                ours[modality][name]["mean"], curve["mean"], rtol=0, atol=1e-10
            )


def test_figure1_is_the_same_for_any_thread_count(tmp_path: Path) -> None:
    for threads in ("1", "2"):
        command = ["figure1", "--seeds", "1", "--threads", threads, *QUICK]
        out = tmp_path / threads
        subprocess.run(
            [sys.executable, "-m", "mmcl_fast.cli", *command, "--out", str(out)], check=True
        )
    one, two = (json.loads((tmp_path / t / "figure1.json").read_text()) for t in "12")
    assert (one["single"], one["multi"]) == (two["single"], two["multi"])


def test_train_leaves_curves_and_weights(tmp_path: Path) -> None:
    command = ["train", "--preset", "figure1-multi", "--n", "20", "--d", "30", "--m", "4", *QUICK]
    assert run([*command, "--coefficients-every", "2", "--out", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "curves.npz",
        "curves.png",
        "run.json",
        "weights.safetensors",
    ]
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["status"] == "finished"
    assert (found["config"]["modality"], found["config"]["n"]) == ("multi", 20)
    with np.load(tmp_path / "curves.npz") as file:
        curves = dict(file)
    assert curves["loss"].shape == (7,)
    assert curves["rho_curve"].shape == (4, 4, 20)
    assert found["final"]["loss"] == pytest.approx(curves["loss"][-1])
    assert {k: tuple(v.shape) for k, v in load_file(tmp_path / "weights.safetensors").items()} == {
        "weights": (4, 30),
        "weights_b": (4, 30),
    }


def test_train_continues_from_its_checkpoint(tmp_path: Path) -> None:
    import mmcl_fast
    from mmcl_fast.cli.checks import CHECKPOINT

    cfg = mmcl_fast.TrainConfig(n=20, d=30, m=4, epochs=6)

    def die(info) -> None:
        if info.epoch == 5:
            raise RuntimeError

    resolved = mmcl_fast.TrainConfig(**cfg.to_dict())
    with pytest.raises(RuntimeError):
        mmcl_fast.train(
            resolved, on_epoch=die, checkpoint=tmp_path / CHECKPOINT, checkpoint_every=2
        )
    command = ["train", "--n", "20", "--d", "30", "--m", "4", *QUICK, "--out", str(tmp_path)]
    assert run([*command, "--checkpoint-every", "2"]) == 0
    assert not (tmp_path / CHECKPOINT).exists()
    with np.load(tmp_path / "curves.npz") as curves:
        np.testing.assert_array_equal(curves["loss"], mmcl_fast.train(cfg).loss.numpy())


def test_a_diverged_run_is_not_success_and_keeps_its_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["train", "--q", "3", "--eta", "1000", "--sigma-0", "1", "--epochs", "50"]
    assert run([*command, "--n", "20", "--d", "50", "--m", "6", "--out", str(tmp_path)]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.npz", "curves.png", "run.json"]
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["status"] == "diverged"
    assert found["final"]["loss"] is None
    error = capsys.readouterr().err
    assert f"not finite at epoch {found['diverged_at']}" in " ".join(error.split())


MISTAKES = [
    (["train", "--n", "1"], "n: expected an integer >= 2, got 1"),
    (["train", "--n", "x"], "--n: expected an integer, got 'x'"),
    (["train", "--tau", "0"], "tau: expected a finite number > 0, got 0.0"),
    (["train", "--q", "0"], "q: expected an integer in 1 .. 16, got 0"),
    (["train", "--eta", "nan"], "eta: expected a finite number > 0, got nan"),
    (["train", "--tauu", "1"], "--tauu: expected an option of mmcl train (did you mean --tau?)"),
    (
        ["train", "--preset", "figure2"],
        "preset: expected one of figure1, figure1-multi, got 'figure2'",
    ),
    (["train", "--engine", "gram", "--optimizer", "adam"], "engine gram: optimizer adam"),
    (["train", "--checkpoint-every", "-1"], "checkpoint_every: expected an integer >= 0, got -1"),
    (["train", "--n", "2", "--seed", "SEED"], "labels: expected both +1 and -1"),
    (["figure1", "--preset", "foo"], "--preset: expected an option of mmcl figure1"),
    (["figure1", "--seeds", "0"], "seeds: expected an integer >= 1, got 0"),
    (["figure1", "--threads", "0"], "threads: expected an integer in 1 .. 4096, got 0"),
    (["figure1", "--threads", "99999999999"], "threads: expected an integer in 1 .. 4096"),
    (
        ["figure1", "--seeds", "2", "--first-seed", "18446744073709551615"],
        "seed: expected an integer in 0 .. 2^64 - 1, got 18446744073709551616",
    ),
    (["train", "--tau", "1e-45"], "tau: expected 1 / (m tau) to be finite in float32, got 1e-45"),
    (["train", "--eta", "1e39"], "eta: expected eta to be finite in float32, got 1e+39"),
    (["train", "--mu-norm", "1e25"], "mu_norm: expected mu_norm^2 to be finite in float32"),
    (["train", "--momentum", "0.5"], "momentum: expected None with optimizer gd, got 0.5"),
    (["train", "--negatives-draw", "per_epoch"], "negatives_draw: expected fixed where all"),
    (["train", "--n", "60000", "--d", "2", "--engine", "reference"], "memory: expected a run of"),
    (
        ["figure2"],
        "figure2: expected a command (did you mean figure1?): figure1, table1, train, sweep,",
    ),
    ([], "mmcl: expected a command: figure1,"),
    (["train", "--n"], "--n: expected one argument"),
    (["train", "stray"], "stray: expected an option of mmcl train"),
    (["train", "--dtype", "float16"], "--dtype: expected one of float32, float64, got 'float16'"),
    (["train", "--eta", "x"], "--eta: expected a number, got 'x'"),
    (["status"], "store: expected PATH, got none"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=lambda x: str(x)[:40])
def test_mistakes_are_one_line_and_leave_nothing(
    command: list[str], message: str, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    from tests.training.test_loop import raw_labels

    monkeypatch.chdir(tmp_path)
    one_label = next(s for s in range(50) if len(set(raw_labels(s))) == 1)
    assert run([str(one_label) if a == "SEED" else a for a in command]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"mmcl: error: {message}")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for out in (blocked, blocked / "below"):
        assert run(["figure1", "--out", str(out)]) == 2
        assert capsys.readouterr().err.startswith(
            "mmcl: error: out: expected a directory that can be written"
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert run(["figure1", "--out", str(tmp_path)]) == 2


def test_info_names_engines_and_backends(capsys: pytest.CaptureFixture) -> None:
    assert run(["info"]) == 0
    said = capsys.readouterr().out
    for word in ("native", "gram", "primal", "reference", "torch", "threads"):
        assert word in said


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_info_keeps_words_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run(["info"]) == 0
    said = capsys.readouterr().out
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= columns
    for word in ("scikit-learn", "optimizer", "coordinates"):
        assert word in said


def test_help_shows_every_setting(capsys: pytest.CaptureFixture) -> None:
    from mmcl_fast.config import FIELD_NAMES

    with pytest.raises(SystemExit) as stop:
        run(["train", "--help"])
    assert not stop.value.code
    said = capsys.readouterr().out
    for name in FIELD_NAMES:
        assert f"--{name.replace('_', '-')}" in said


@pytest.mark.parametrize("command", [*COMMANDS, None])
def test_help_reads_as_prose(command: str | None, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        run([*filter(None, [command]), "--help"])
    assert not stop.value.code
    said = " ".join(capsys.readouterr().out.split())
    for leftover in ("None", "MISSING", "frozen", "Raises:", "`"):
        assert leftover not in said
    assert command is not None or all(name in said for name in COMMANDS)


def test_flags_change_the_settings_of_a_preset() -> None:
    typed = ["--preset", "figure1-multi", "--mu_norm=2", "--tau", "none", "--momentum", "None"]
    train = build(Train, parse("train", Train, typed))
    assert train.config == PRESETS["figure1-multi"].replace(mu_norm=2.0)
    typed = ["--data", "x", "--flip", "0.5", "--epochs", "2", "--arms", "multi", "single"]
    table = build(Table1, parse("table1", Table1, typed))
    assert (table.config.views.flip, table.config.epochs) == (0.5, 2)
    assert table.arms == ("multi", "single")
    typed = ["--grid", "m=1", "--out", "x", "--grid", "n=2", "--sbatch=--partition=cpu"]
    sweep = build(Sweep, parse("sweep", Sweep, typed))
    assert (sweep.grid, sweep.zip, sweep.sbatch) == (("m=1", "n=2"), (), ("--partition=cpu",))


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    """The command runs with a real terminal as its standard error, where the bar is drawn."""
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "mmcl_fast.cli", "train", "--n", "20", "--d", "30", "--m", "4"]
    with subprocess.Popen(
        [*command, "--epochs", "300", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=secondary,
    ) as process:
        os.close(secondary)
        shown = b""
        # A closed terminal reads as an error, at the end of the program.
        with contextlib.suppress(OSError):
            while piece := os.read(primary, 4096):
                shown += piece
        os.close(primary)
        assert process.wait() == 0, shown.decode()
    assert b"training" in shown


def test_reduced_data_leave_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small = ["--n", "20", "--m", "4", *QUICK, "--out", str(tmp_path)]
    assert run(["train", "--d", "30", *small]) == 0
    assert (tmp_path / "weights.safetensors").exists()
    (tmp_path / "mine.txt").write_text("not ours")
    capsys.readouterr()
    assert run(["train", "--d", "1000", "--data", "reduced", *small, "--overwrite"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "curves.npz",
        "curves.png",
        "mine.txt",
        "run.json",
    ]
    said = capsys.readouterr().out
    assert "no weights" in said
    assert "mine.txt" not in said


def test_square_brackets_in_a_path_are_text(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "x[bold]y"
    assert run(["train", "--n", "20", "--d", "30", *QUICK, "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out


def test_a_terminal_without_our_symbols(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "mmcl_fast.cli", "figure1", "--seeds", "1", *QUICK]
    subprocess.run([*command, "--out", str(tmp_path)], check=True, env=environment)


@pytest.mark.parametrize("error", [MemoryError("big"), RuntimeError("CUDA out of memory. Tried")])
def test_running_out_of_memory_is_one_line(
    error: Exception, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    from mmcl_fast.cli import command_line

    def fail(arguments):
        raise error

    monkeypatch.setattr(command_line, "_parse", fail)
    assert run(["train"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mmcl: error: out of memory: ")
    assert said.count("\n") == 1


def test_interrupting_is_not_success(monkeypatch) -> None:
    from mmcl_fast.cli import command_line

    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "_parse", interrupt)
    assert run(["train"]) == 130


def test_what_the_system_refuses_is_one_line(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    from mmcl_fast.cli import command_line

    def fail(arguments):
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr(command_line, "_parse", fail)
    assert run(["train"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "mmcl: error: [Errno 13] Permission denied: 'somewhere'"
    ]


def test_a_mistake_of_ours_is_not_hidden(monkeypatch) -> None:
    from mmcl_fast.cli import command_line

    def fail(arguments):
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(command_line, "_parse", fail)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        run(["train"])


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    command = [sys.executable, "-u", "-m", "mmcl_fast.cli", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        done = subprocess.run(
            command, stdout=stream, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 141
    assert done.stderr == ""


def test_first_seed_is_used(tmp_path: Path) -> None:
    import mmcl_fast

    command = ["figure1", "--seeds", "2", "--first-seed", "7", "--epochs", "2"]
    assert run([*command, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "figure1.json").read_text())
    assert found["config"]["seeds"] == [7, 8]
    alone = mmcl_fast.train(mmcl_fast.TrainConfig(seed=8, epochs=2))
    np.testing.assert_array_equal(found["single"]["loss"]["per_seed"][1], alone.loss.tolist())

"""`mmcl bench`: what it shows, what it refuses to time, what it leaves behind."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mmcl_fast.bench import operations, run
from mmcl_fast.bench.cpu import data, end_to_end, loss, scaling
from mmcl_fast.bench.peers import registry
from mmcl_fast.bench.peers.registry import PEERS, peer_of, usable
from mmcl_fast.bench.report import picture
from mmcl_fast.bench.timing.memory import in_fork
from mmcl_fast.cli.command_line import run as command
from mmcl_fast.config import TrainConfig

CEILING = {"op": "ceiling", "variant": "x", "settings": {}, "gflop_s": 200.0, "gbyte_s": 20.0}
CEILING |= {"cpu": "a CPU", "cores": 2, "load_1min": 0.5}
LOSS = {
    "op": "loss",
    "variant": "mmcl_fast",
    "settings": {"loss": "symmetric", "n": 2048, "d": 256},
    "flop": 8e9,
    "cpu_ms": {"p20": 49.0, "p50": 50.0, "p80": 51.0},
    "peak_mib": 38.0,
    "times dense": 3.76,
    "times open_clip": 3.24,
}
SIZE = {
    "op": "sizes",
    "variant": "mmcl_fast",
    "settings": {"of": "loss", "axis": "N", "value": 256},
    "cpu_ms": {"p50": 2.0},
    "peak_mib": 0.0,
}


def test_every_ratio_is_in_the_table_and_peers_have_no_line_of_their_own() -> None:
    dense = {**LOSS, "variant": "dense", "times dense": 1.0, "times open_clip": 0.987}
    bound = {**LOSS, "op": "normals", "variant": "memset", "settings": {}, "times_numpy": 55.5}
    gram = {"op": "gram", "variant": "streaming_gram", "settings": {}, "times_streaming": 1.0}
    text = run.ratio_table([LOSS, dense, bound, {**gram, "times bare product": 1.52}])
    lines = [line.split() for line in text.splitlines()[1:]]
    assert lines == [
        ["loss:", "symmetric", "n=2,048", "d=256", "mmcl_fast", "50", "38", "3.76", "dense"],
        ["3.24", "open_clip"],
        ["gram", "streaming_gram", "1.52", "bare", "product"],
    ]


def test_share_of_the_ceiling_is_of_the_scarcer_resource() -> None:
    operation = operations.OPERATIONS[0]
    found = operations.judged(LOSS, operation, CEILING)
    assert found["gflop_s"] == 160.0
    assert found["of_ceiling"] == 0.8
    assert found["least_bytes"] == 4 * 2048 * 256 * 4
    slow_memory = {**CEILING, "gbyte_s": found["least_bytes"] / 0.045 / 1e9}
    assert operations.judged(LOSS, operation, slow_memory)["of_ceiling"] == 0.9


def test_work_of_a_training_run() -> None:
    settings = {"n": 10, "d": 50, "m": 3, "epochs": 7}
    epoch = 2 * 3 * 11 * 21 + 2 * 2 * 50 * 6
    row = {"settings": {**settings, "modality": "single"}}
    assert operations.train_work(row) == operations.LeastWork(7 * epoch, 4 * 21 * 11)
    row = {"settings": {**settings, "modality": "multi"}}
    assert operations.train_work(row).flop == 7 * 2 * (2 * 3 * 11 * 11 + 2 * 2 * 50 * 6)


def test_every_peer_of_an_operation_is_known_and_every_module_is_there() -> None:
    for operation in operations.OPERATIONS:
        assert set(operation.peers) <= set(PEERS)
        assert operation.why_not() is None
    missing = operations.Operation("x", "nowhere", "", (), "", operations.unknown_work)
    assert missing.why_not() == "bench/nowhere.py: not in this version"


def test_help_names_every_operation(capsys) -> None:
    with pytest.raises(SystemExit):
        command(["bench", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"Operations: {', '.join(operations.NAMES)}." in said


def test_a_peer_is_timed_only_where_it_is_asked_for_and_can_run(monkeypatch) -> None:
    variants = dict.fromkeys(("mmcl_fast", "dense", "dense, compiled", "open_clip", "memset"), 1)
    monkeypatch.setattr(registry.shutil, "which", lambda name: None)
    monkeypatch.setattr(registry, "version", lambda name: "1.0")
    assert set(usable(variants)) == {"mmcl_fast", "dense", "open_clip", "memset"}
    assert set(usable(variants, [])) == {"mmcl_fast", "memset"}
    assert set(usable(variants, ["open_clip"])) == {"mmcl_fast", "open_clip", "memset"}
    assert peer_of("dense, compiled") is PEERS["compile"]
    assert "C++ compiler" in str(PEERS["compile"].why_not())
    assert "CUDA" in str(PEERS["memeff"].why_not())


def test_a_peer_that_is_missing_says_how_to_install_it(monkeypatch) -> None:
    def absent(name: str) -> str:
        raise registry.PackageNotFoundError(name)

    monkeypatch.setattr(registry, "version", absent)
    reason = "not installed: pip install --no-deps open_clip_torch==3.3.0"
    assert PEERS["open_clip"].why_not() == reason
    (row,) = (r for r in run.peer_rows(None, operations.OPERATIONS) if r["variant"] == "open_clip")
    assert (row["version"], row["skipped"]) == (None, reason)
    (row,) = (
        r for r in run.peer_rows(["jax"], operations.OPERATIONS) if r["variant"] == "open_clip"
    )
    assert row["skipped"] == "not asked for"


@pytest.fixture
def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("timed although something was wrong")

    for module in (loss, data, scaling):
        monkeypatch.setattr(module, "interleaved", fail)
    monkeypatch.setattr(loss, "memory", lambda case, variant: {})
    monkeypatch.setattr(scaling, "weigh", lambda *_: 0.0)
    monkeypatch.setattr(end_to_end, "cpu_s", fail)


@pytest.mark.usefixtures("no_timing")
def test_a_wrong_loss_is_not_timed(monkeypatch, capsys) -> None:
    first = loss.CASES[0]
    off = {**vars(first), "ours": lambda x, y, s: first.ours(x, y, s) * 1.0001}
    monkeypatch.setattr(loss, "CASES", (loss.Case(**off),))
    assert loss.main(["--quick", "--peers", "eager"]) == 1
    assert "symmetric, N = 2048: wrong: mmcl_fast" in capsys.readouterr().err


@pytest.mark.usefixtures("no_timing")
def test_wrong_data_are_not_timed(monkeypatch, capsys) -> None:
    monkeypatch.setattr(data, "normal", lambda seed, shape: torch.zeros(shape))
    assert data.main(["--quick"]) == 1
    assert "data: wrong: streaming_gram" in capsys.readouterr().err
    monkeypatch.undo()
    real = data._native.fill_normal

    def one_bit(out: np.ndarray, **where: object) -> None:
        real(out, **where)
        if where.get("target") == "baseline":
            out.view(np.int32)[0, 0, 0] ^= 1

    monkeypatch.setattr(data._native, "fill_normal", one_bit)
    assert data.wrong_data() == ["normals of baseline"]


@pytest.mark.usefixtures("no_timing")
def test_a_wrong_run_is_not_timed(monkeypatch, capsys) -> None:
    right = scaling.eager_losses
    monkeypatch.setattr(scaling, "eager_losses", lambda *given: right(*given) * 1.001)
    assert scaling.train_wrong(TrainConfig(n=20, d=50, m=4, device="cpu")) == ["eager, tuned"]
    monkeypatch.setattr(end_to_end, "wrong", lambda cfg: ["native, train()"])
    assert end_to_end.main(["--quick"]) == 1
    assert "losses of native, train() are wrong" in capsys.readouterr().err


def test_a_module_that_fails_is_red_and_one_without_time_is_not() -> None:
    rows, failure = run.measure("cpu.loss", ["--peers", "nobody"], 60)
    assert rows == []
    assert failure is not None
    assert failure.red
    assert "peers" in failure.reason
    rows, failure = run.measure("cpu.loss", [], 0.05)
    assert (rows, failure.red) == ([], False)


@pytest.mark.parametrize("values", [(3.0, 4.0), (1.0, 9.0), (2.0, 900.0), (11.0, 14.0)])
def test_a_logarithmic_axis_has_three_labels(values: tuple[float, float]) -> None:
    axis = Figure().subplots()
    axis.loglog([1, 2], values)
    picture._label_heights(axis)
    low, high = axis.get_ylim()
    assert len([v for v in axis.get_yticks() if low <= v <= high]) >= 3


def test_the_command_leaves_rows_and_a_picture(tmp_path: Path, monkeypatch, capsys) -> None:
    asked = []

    def measured(module: str, arguments: list[str], limit_s: float) -> tuple[list, object]:
        asked.append((module, *arguments))
        if module == "cpu.train":
            return [], run.Failure("train", "single: gram: losses are 1.0e+00 from float64", True)
        known = {"timing.ceiling": CEILING, "cpu.loss": LOSS, "cpu.scaling": SIZE}
        return [known[module]] if module in known else [], None

    monkeypatch.setattr(run, "measure", measured)
    call = ["bench", "loss", "sizes", "--peers", "eager", "--quick", "--out", str(tmp_path)]
    assert command(call) == 0
    peers = ("--quick", "--peers", "eager")
    assert asked == [("timing.ceiling", "--quick"), ("cpu.loss", *peers), ("cpu.scaling", *peers)]
    rows = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()]
    (found,) = (row for row in rows if row["op"] == "loss")
    assert found["of_ceiling"] == 0.8
    assert found["command"] == "mmcl bench loss sizes --peers eager --quick"
    (peer,) = (row for row in rows if row["op"] == "peer" and row["skipped"] is None)
    assert (peer["variant"], peer["version"]) == ("eager", torch.__version__)
    assert peer["cpu"] == "a CPU"
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "3.76  dense" in capsys.readouterr().out
    other = tmp_path / "more.jsonl"
    assert command(["bench", "train", "--json", str(other), "--out", str(tmp_path)]) == 1
    assert "train: RED, nothing of it was timed: single: gram" in capsys.readouterr().out
    assert len((tmp_path / "bench.jsonl").read_text().splitlines()) == len(rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "lose"], "operations: expected some of loss, train, data"),
        (["bench", "--peers", "keras"], "peers: expected some of eager, compile"),
        (["bench", "--out", "/dev/null/x"], "out: expected a directory that can be written"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, capsys) -> None:
    assert command(arguments) == 2
    assert message in capsys.readouterr().err


def test_memory_of_a_fork() -> None:
    # In a process of its own: what the tests before this one freed would be handed out unseen.
    script = """if True:
        import numpy as np
        from mmcl_fast.bench.timing.measure import added_mib
        from mmcl_fast.bench.timing.memory import in_fork
        print(in_fork(lambda: [added_mib(lambda: np.ones(48 * 2**20, np.uint8).sum())])[0])
    """
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    found = float(done.stdout)
    if not math.isnan(found):
        assert 47 < found < 60
    with pytest.raises(RuntimeError, match="a process that failed"):
        in_fork(lambda: [1.0 / len([])])

"""`mmcl sweep` and `mmcl status`: what they leave behind, and one line for every mistake."""

from pathlib import Path

import pytest

import mmcl_fast
from mmcl_fast.cli.command_line import run
from mmcl_fast.cli.commands import status as status_module
from mmcl_fast.sweep import load
from mmcl_fast.sweep.execute import shard
from mmcl_fast.sweep.store.status import Status
from mmcl_fast.sweep.store.store import Store
from tests.sweep.disturbance import parts, same_parts

SMALL = ["--n", "12", "--d", "60", "--epochs", "4", "--n-test", "10"]
SMALL += ["--data", "reduced"]
GRID = ["--grid", "m=4,8", "--grid", "modality=both", "--seeds", "2"]
pytestmark = pytest.mark.usefixtures("inline")


def test_a_sweep_and_its_status(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = str(tmp_path / "store")
    assert run(["sweep", *SMALL, *GRID, "--out", out]) == 0
    told = capsys.readouterr()
    for text in ("8 runs (4 settings), 4 shards", "engine native", "finished", "8 in "):
        assert text in told.out
    table = load(out)
    assert table["m"].to_pylist() == [4] * 4 + [8] * 4
    assert table["modality"].to_pylist() == ["single", "single", "multi", "multi"] * 2
    assert table["seed"].to_pylist() == [0, 1] * 4
    run_ = mmcl_fast.train(
        mmcl_fast.TrainConfig(
            n=12, d=60, m=8, epochs=4, n_test=10, data="reduced", modality="multi", seed=1
        )
    )
    assert table["loss"].to_pylist()[-1] == run_.loss.tolist()
    assert run(["status", out]) == 0
    said = capsys.readouterr().out
    for text in ("8 of 8 (100.0%)", "4 of 4", "finished"):
        assert text in said
    # The same command again computes nothing and says so.
    assert run(["sweep", *SMALL, *GRID, "--out", out]) == 0
    assert "resuming: 8 of 8 runs are there" in capsys.readouterr().err


def test_a_part_of_the_shards(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["sweep", *SMALL, *GRID, "--out", str(tmp_path)]
    assert run([*command, "--shard", "2/2"]) == 0
    assert run(["status", str(tmp_path)]) == 1, "not complete"
    assert "4 of 8 (50.0%)" in capsys.readouterr().out
    assert run([*command, "--shard=1/2"]) == 0
    assert run(["status", str(tmp_path)]) == 0
    assert load(tmp_path).num_rows == 8


FILE = """
seeds = 2
[base]
data = "reduced"
n = 12
d = 60
m = 4
epochs = 4
n_test = 10
[grid]
eta = [0.01, 0.02]
m = [4, 8]
"""


def test_a_file_and_flags_before_it(tmp_path: Path) -> None:
    (tmp_path / "widths.toml").write_text(FILE)
    spec = str(tmp_path / "widths.toml")
    assert run(["sweep", spec, "--out", str(tmp_path / "a")]) == 0
    table = load(tmp_path / "a")
    assert table.num_rows == 8
    assert set(table["n"].to_pylist()) == {12}
    flags = ["--grid", "m=5", "--n=9", "--seeds", "1", "--first-seed", "7"]
    assert run(["sweep", "--out", str(tmp_path / "b.toml"), *flags, "--retry-failed", spec]) == 0
    table = load(tmp_path / "b.toml")
    told = table.select(["n", "m", "eta", "seed", "epochs"]).to_pylist()
    assert told == [{"n": 9, "m": 5, "eta": eta, "seed": 7, "epochs": 4} for eta in (0.01, 0.02)]


def test_a_dry_run_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "store"
    assert run(["sweep", *SMALL, *GRID, "--seeds", "2", "--out", str(out), "--dry-run"]) == 0
    assert "8 runs (4 settings)" in capsys.readouterr().out
    assert not out.exists()


def test_another_plan_is_refused_and_a_longer_one_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["sweep", *SMALL, *GRID, "--out", str(tmp_path)]) == 0
    before = parts(tmp_path)
    longer = ["sweep", *SMALL, *GRID[:-1], "3", "--out", str(tmp_path)]
    capsys.readouterr()
    assert run(longer) == 2
    said = capsys.readouterr().err
    assert said.startswith("mmcl: error: plan: expected the one of the store")
    assert "data_seed: 0 .. 1 in the store, 0 .. 2 asked for" in said
    assert "--extend to add runs" in said
    assert said.count("\n") == 1
    assert run([*longer, "--extend"]) == 0
    after = parts(tmp_path)
    assert len(after) > len(before)
    assert same_parts({k: after[k] for k in before}, before)
    assert load(tmp_path).num_rows == 12


def test_diverged_runs_are_rows_and_failed_ones_are_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = ["--q", "3", "--sigma-0", "1", "--eta", "1000", "--epochs", "50"]
    assert run(["sweep", *SMALL, *wild, "--out", str(tmp_path / "wild")]) == 0
    assert "diverged" in capsys.readouterr().out

    def fails(configs: object, **options: object) -> None:
        raise ArithmeticError("odd")

    good = shard.train_many
    monkeypatch.setattr(shard, "train_many", fails)
    command = ["sweep", *SMALL, "--out", str(tmp_path / "odd")]
    assert run(command) == 1
    said = capsys.readouterr()
    assert "failed" in said.out
    assert f"tracebacks of failed runs: {tmp_path / 'odd' / 'failures'}" in said.err
    assert run(["status", str(tmp_path / "odd")]) == 1
    monkeypatch.setattr(shard, "train_many", good)
    assert run(command) == 1, "it is not tried again unless that is asked for"
    assert run([*command, "--retry-failed"]) == 0
    assert run(["status", str(tmp_path / "odd")]) == 0


def test_status_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["sweep", *SMALL, *GRID, "--out", str(tmp_path)]) == 0
    (tmp_path / "parts" / "notes").write_text("")
    assert run(["status", str(tmp_path)]) == 2, "every row is there, and a stranger"
    Store(tmp_path).part(1).write_bytes(b"x")
    Store(tmp_path).quarantine_shard(2, 5, "SIGKILL")
    Store(tmp_path).part(2).unlink()
    capsys.readouterr()
    assert run(["status", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "quarantined shards" in said.out
    assert "mmcl: part-000001.parquet: expected an undamaged file" in said.err
    assert "mmcl: notes: expected a part of this store's plan" in said.err
    assert run(["status", str(tmp_path / "nowhere")]) == 2
    assert "store: expected a directory with plan.parquet" in capsys.readouterr().err


def test_status_prints_every_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    found = Status(
        runs=400, done=100, shards=8, parts=2, counts={"finished": 99, "diverged": 1}, retried=3,
        put_away=[5, 7], bad={}, rate=12.34, seconds_left=3 * 3600 + 4 * 60 + 31,
        busy_seconds=26 * 3600 + 7 * 60, machines=["CPU 1", "CPU 2"],
    )  # fmt: skip
    monkeypatch.setattr(status_module, "read_status", lambda store, verify: found)
    (tmp_path / "plan.parquet").touch()
    assert run(["status", str(tmp_path)]) == 1
    cells = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [value.strip() for _, value in cells] == [
        "100 of 400 (25.0%)", "2 of 8", "1", "99", "3", "5, 7", "12.3 runs/s", "3 h 04 min",
        "26 h 07 min", "CPU 1", "CPU 2",
    ]  # fmt: skip


MISTAKES = [
    (["--grid", "mm=1"], "mm: unknown setting; did you mean m?"),
    (["--grid", "m="], "grid: expected name=value,value,..., got 'm='"),
    (["--grid", "m=1", "--grid", "m=2"], "grid: expected m once, got it twice"),
    (["--grid", "m=1,1"], "m: expected different values, got 1 twice"),
    (["--grid", "m=linspace(1,inf,3)"], "m: expected linspace(first, last, count)"),
    (["--grid", "m=1.5"], "m: expected an integer, got 1.5"),
    (["--grid", "m=0,1"], "m: expected an integer >= 1, got 0 (at m = 0)"),
    (["--grid", "snr=-1"], "snr: expected a finite number >= 0, got -1"),
    (["--grid", "snr=1", "--zip", "mu_norm=1"], "mu_norm: expected one axis that sets mu_norm"),
    (["--zip", "m=1,2", "--zip", "q=3"], "zip: expected lists of one length, got m of 2, q of 1"),
    (
        ["--grid", "modality=both", "--grid", "augment=fixed,per_epoch"],
        "augment: expected fixed with modality multi (it has no augmentation) (at modality = multi",
    ),
    (["--grid", "seed=1"], "seed: expected seeds and first_seed instead of an axis"),
    (["--grid", "device=cuda"], "device: expected cpu (no CUDA device is usable here)"),
    (["--zip", "m=1,2"], "zip: expected two axes or more that vary jointly, got m alone"),
    (["--grid", "n=5"], "n: expected one value or an axis of n, got --n too"),
    (["--grid", "m=1", "--m", "2"], "m: expected one value or an axis of m, got --m too"),
    (
        ["--zip", "snr=1,2", "--zip", "m=1,2", "--mu-norm", "1"],
        "mu_norm: expected one value or an axis of snr (which sets it), got --mu-norm too",
    ),
    (["--extend"], "store: expected a directory with plan.parquet, got 'store'"),
    (["--grid", "lr=1"], "lr: unknown setting; did you mean eta?"),
    (["--negatives-per-sample", "12"], "negatives_per_sample: expected at most n - 1 = 11"),
    (["--seeds", "0"], "seeds: expected an integer >= 1, got 0"),
    (["--seeds", "2", "--first-seed", "18446744073709551615"], "seed: expected an integer in 0"),
    (["--first-seed", "-1"], "first_seed: expected an integer >= 0, got -1"),
    (["--shard", "3/2"], "shard: expected i/N with 1 <= i <= N, got 3/2"),
    (["--shard", "1/0"], "shard: expected i/N with 1 <= i <= N, got 1/0"),
    (["--shard", "x"], "shard: expected i/N, such as 3/10, got 'x'"),
    (["--workers", "0"], "workers: expected an integer >= 1, got 0"),
    (["--address", "127.0.0.1:6379"], "address: expected executor ray, got local"),
    (["--max-worker-failures", "0"], "max_worker_failures: expected an integer >= 1, got 0"),
    (["--max-deaths", "3"], "--max-deaths: renamed, expected --max-worker-failures"),
    (["--max-deaths=3"], "--max-deaths: renamed, expected --max-worker-failures"),
    (["--worker-timeout", "1"], "worker_timeout: expected seconds >= 5, got 1.0"),
    (["--worker-timeout", "inf"], "worker_timeout: expected seconds >= 5, got inf"),
    (
        ["--worker-timeout", "9", "--executor", "ray"],
        "worker_timeout: expected executor local, got ray",
    ),
    (["--slurm", "0"], "slurm: expected an integer >= 1, got 0"),
    (["--seed=-1"], "seed: expected an integer in 0 .. 2^64 - 1, got -1"),
    (["sweep.txt"], "spec: expected a file named *.toml, got 'sweep.txt'"),
    (["nowhere.toml"], "spec: expected a TOML file, got 'nowhere.toml'"),
    (["--retry"], "--retry: expected an option of mmcl sweep (did you mean --retry-failed?)"),
    (["--data", "explicit", "--d", "1e9", "--n", "1e5"], "memory: expected"),
]


@pytest.mark.parametrize(
    ("flags", "message"), MISTAKES, ids=[" ".join(f)[:40] for f, _ in MISTAKES]
)
def test_mistakes_are_one_line_and_leave_nothing(
    flags: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(["sweep", *SMALL, *flags, "--out", "store"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"mmcl: error: {message}")
    assert said.err.count("\n") == 1
    assert said.out == "", "no plan before the error"
    assert not list(tmp_path.iterdir())

"""The text of the script for Slurm; `test_array.py` runs one."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmcl_fast.cli.command_line import run
from mmcl_fast.cli.commands.sweep import job_command
from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.sweep.execute.slurm import JobArray, write_script

COMMAND = ["mmcl", "sweep", "--grid", "snr=linspace(0.1, 1, 3)", "--out", "a store"]
ARRAY = JobArray(jobs=7, cores=4, seconds=3600.0, gpus=False, memory=2000 << 20)


def lines_of(
    store: Path, array: JobArray = ARRAY, options: tuple[str, ...] = (), setup: tuple[str, ...] = ()
) -> list[str]:
    script = write_script(COMMAND, array, store, options, setup)
    subprocess.run(["bash", "-n", script], check=True)
    return script.read_text().splitlines()


def test_an_array_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "it's here"
    here.mkdir()
    monkeypatch.chdir(here)
    lines = lines_of(tmp_path, options=("--partition=cpu", "-A account", "--requeue"))
    assert lines[0] == "#!/bin/bash"
    for line in (
        "--array=1-7",
        "--cpus-per-task=4",
        "--time=120",
        "--mem=2500M",
        "--signal=B:TERM@60",
        "--partition=cpu",
        "-A account",
        "--requeue",
    ):
        assert f"#SBATCH {line}" in lines
    assert not any("gpu" in line for line in lines)
    directives = [k for k, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert max(directives) < lines.index("set -eo pipefail"), "sbatch stops reading at a command"
    assert shlex.split(lines[-3]) == ["cd", str(here)]
    assert shlex.split(lines[-1]) == [
        "exec",
        *COMMAND,
        "--workers",
        "4",
        "--shard",
        "$SLURM_ARRAY_TASK_ID/7",
    ]


def test_jobs_with_a_gpu_and_short_ones(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, JobArray(jobs=1, cores=2, seconds=1.0, gpus=True, memory=1))
    assert "#SBATCH --gres=gpu:1" in lines
    assert "#SBATCH --time=10" in lines
    assert "--workers 1 " in lines[-1]


@pytest.mark.parametrize(
    ("option", "absent"),
    [("--time=1-0", "--time=120"), ("-t 30", "--time=120"), ("--mem-per-cpu=4G", "--mem=2500M")],
)
def test_a_limit_of_the_user_stands_in_place_of_the_estimate(
    option: str, absent: str, tmp_path: Path
) -> None:
    lines = lines_of(tmp_path, options=(option,))
    assert f"#SBATCH {option}" in lines
    assert f"#SBATCH {absent}" not in lines


def test_lines_before_the_sweep(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, setup=("module load cuda", "source env/bin/activate"))
    first = lines.index("module load cuda")
    assert lines[first + 1] == "source env/bin/activate"
    assert lines.index("set -eo pipefail") < first < lines.index("set -u")


def test_a_job_runs_this_interpreter_by_its_path() -> None:
    words = ["sweep", "--setup", "a b", "--workers=3", "--slurm", "4", "--m", "2", "--sbatch=-p x"]
    assert job_command(words) == [
        *(sys.executable, "-P", "-m", "mmcl_fast.cli"),
        *("sweep", "--m", "2"),
    ]


def test_the_hint_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    store = tmp_path / "my store"
    flags = ["--n", "12", "--m", "4", "--epochs", "2", "--data", "reduced", "--slurm", "2"]
    assert run(["sweep", *flags, "--out", str(store), "--workers", "3"]) == 0
    hint = capsys.readouterr().out.partition("submit it with: ")[2]
    assert shlex.split(hint) == ["sbatch", str(store / "sweep.sbatch")]
    (line,) = [x for x in (store / "sweep.sbatch").read_text().splitlines() if "--mem" in x]
    mebibytes = int(re.fullmatch(r"#SBATCH --mem=(\d+)M", line)[1])
    assert mebibytes > 1.25 * (600 + 3 * 400), "a driver and three workers with torch"


@pytest.mark.parametrize("flag", ["--setup=x", "--sbatch=--mem=1G"])
def test_options_of_a_script_that_is_not_asked_for(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["sweep", "--m", "4", flag, "--out", str(tmp_path / "s")]) == 2
    name = flag[2:].partition("=")[0]
    assert f"mmcl: error: {name}: expected --slurm" in capsys.readouterr().err


def test_logs_in_a_store_with_an_odd_name(tmp_path: Path) -> None:
    store = tmp_path / "50% of it"
    store.mkdir()
    (line,) = [x for x in lines_of(store) if "--output" in x]
    pattern = re.fullmatch(r'#SBATCH --output="(.*)"', line)
    assert pattern
    assert pattern[1] == f"{tmp_path}/50%% of it/slurm-%A-%a.log"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_store_whose_name_the_script_cannot_hold(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match="out: expected a path without quotes and backslashes"):
        lines_of(tmp_path / name)


@pytest.mark.parametrize(
    "option", ["partition=cpu", "--a\nrm -rf /", "--a=b\n", "", "--", "-- x", "--mem= ", "; echo"]
)
def test_options_that_are_none(tmp_path: Path, option: str) -> None:
    with pytest.raises(ConfigError, match="sbatch: expected an option such as --partition=cpu"):
        lines_of(tmp_path, options=(option,))
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"sweep.sbatch: cannot be written"):
        lines_of(tmp_path / "nowhere")

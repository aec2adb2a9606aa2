"""The text of the script for Slurm; `test_array.py` runs one."""

import re
import shlex
from pathlib import Path

import pytest

from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.sweep.execute.slurm import JobArray, write_script

COMMAND = ["mmcl", "sweep", "--grid", "snr=linspace(0.1, 1, 3)", "--out", "a store"]
ARRAY = JobArray(jobs=7, cores=4, seconds=3600.0, gpus=False)


def lines_of(store: Path, array: JobArray = ARRAY, options: tuple[str, ...] = ()) -> list[str]:
    return write_script(COMMAND, array, store, options).read_text().splitlines()


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
        "--partition=cpu",
        "-A account",
        "--requeue",
    ):
        assert f"#SBATCH {line}" in lines
    assert not any("gpu" in line for line in lines)
    directives = [k for k, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert max(directives) < lines.index("set -euo pipefail"), "sbatch stops reading at a command"
    assert shlex.split(lines[-2]) == ["cd", str(here)]
    assert shlex.split(lines[-1]) == [
        "exec",
        *COMMAND,
        "--workers",
        "4",
        "--shard",
        "$SLURM_ARRAY_TASK_ID/7",
    ]


def test_jobs_with_a_gpu_and_short_ones(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, JobArray(jobs=1, cores=2, seconds=1.0, gpus=True))
    assert "#SBATCH --gres=gpu:1" in lines
    assert "#SBATCH --time=10" in lines
    assert "--workers 1 " in lines[-1]


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

"""The script for Slurm: its jobs, run one after the other, complete a sweep."""

import os
import subprocess
from pathlib import Path

import pytest

from mmcl_fast import sweep
from tests.sweep.disturbance import finish, parts, same_parts, start

pytestmark = pytest.mark.process

SWEEP = ["--n", "12", "--epochs", "4", "--data", "reduced"]
SWEEP += ["--grid", "m=2,3,4,5", "--seeds", "3"]
JOBS = 3


def run_job(script: Path, index: int, folder: Path) -> None:
    # Of a shell without the environment in which the script was written.
    environment = {"PATH": os.defpath, "SLURM_ARRAY_TASK_ID": str(index)}
    done = subprocess.run(
        ["bash", str(script)], env=environment, cwd=folder, capture_output=True, timeout=150
    )
    assert done.returncode == 0, (done.stdout, done.stderr)


def test_the_jobs_of_an_array_complete_a_sweep(tmp_path: Path) -> None:
    store = tmp_path / "a store" / "s"
    options = ["--slurm", str(JOBS), "--sbatch=--partition=short", "--workers", "1"]
    options += ["--setup", "echo $UNSET-$SLURM_ARRAY_TASK_ID >> started"]
    finish(start([*SWEEP, "--out", str(store), *options], cwd=tmp_path))
    script = store / "sweep.sbatch"
    lines = script.read_text().splitlines()
    assert f"#SBATCH --array=1-{JOBS}" in lines
    assert "#SBATCH --partition=short" in lines
    assert not (store / "plan.parquet").exists(), "nothing is computed by the writer"
    for index in (2, 3):
        run_job(script, index, tmp_path)
    found = sweep.read_status(store)
    assert 0 < found.done < found.runs == 12
    for index in (1, 2):  # a job that ran already has nothing left to do
        run_job(script, index, tmp_path)
    assert sweep.read_status(store).done == 12
    assert (tmp_path / "started").read_text() == "-2\n-3\n-1\n-2\n"
    finish(start([*SWEEP, "--out", str(tmp_path / "one")]))
    assert same_parts(parts(store), parts(tmp_path / "one"))

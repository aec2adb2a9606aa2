"""Commands on a system without affinity, /proc, forks, SIGHUP, SIGKILL and waiting for pipes.

A `sitecustomize` takes them away from the driver and from its workers.
"""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

LACKING = Path(__file__).parent / "lacking"
SWEEP = ["sweep", "--data", "reduced", "--evaluate-every", "0", "--epochs", "3"]
SWEEP += ["--grid", "m=4,8", "--seeds", "3"]


def mmcl(*arguments: str, lacking: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "120"} | (
        {"PYTHONPATH": str(LACKING)} if lacking else {}
    )
    command = [sys.executable, "-m", "mmcl_fast.cli", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=120
    )


@pytest.mark.process
def test_a_sweep_computes_the_same_rows(tmp_path: Path) -> None:
    for name, lacking in (("without", True), ("with", False)):
        done = mmcl(*SWEEP, "--out", str(tmp_path / name), lacking=lacking)
        assert done.returncode == 0, done.stderr
        assert ("does not tell how much is free" in done.stderr) == lacking
    parts = [sorted((tmp_path / name).rglob("*.parquet")) for name in ("without", "with")]
    assert len(parts[0]) == len(parts[1]) > 1
    columns = ["m", "seed", "loss", "signal", "noise", "status"]
    for one, other in zip(*parts, strict=True):
        if one.name != "plan.parquet":
            assert pq.read_table(one, columns=columns) == pq.read_table(other, columns=columns)


def test_info_says_that_sizes_are_not_checked() -> None:
    done = mmcl("info")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "free memory" in line]
    assert "unknown: sizes are not checked" in line

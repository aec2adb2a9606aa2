"""A sweep's job array under a real Slurm: cancelled, requeued, killed, preempted, submitted again.

Nothing is installed: where Slurm is missing the test is skipped.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmcl_fast import sweep
from mmcl_fast.sweep.execute.slurm import SCRIPT
from tests.sweep import slurm_cluster
from tests.sweep.disturbance import finish, parts, same_parts, start
from tests.sweep.slurm_cluster import Cluster, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(slurm_cluster.missing()),
        reason=f"{', '.join(slurm_cluster.missing())} not installed "
        f"(Debian: {slurm_cluster.PACKAGES})",
    ),
]

# A minute of one core, in over 100 shards: each job is at work when it is disturbed.
SWEEP = ["--data", "reduced", "--evaluate-every", "20", "--epochs", "2000", "--m", "50"]
SWEEP += ["--grid", "modality=both", "--grid", "mu_norm=1,2,3", "--seeds", "100"]
RUNS, JOBS = 600, 6
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="mmcl-slurm-") as folder:
        started = Cluster(Path(folder))
        try:
            started.start()
            yield started
        finally:
            started.close()


def wait_for_shards(cluster: Cluster, array: str, tasks: tuple[int, ...], store: Path) -> None:
    """Wait until tasks of an array run, and another shard is there: their workers are at work."""
    names = [f"{array}_{task}" for task in tasks]
    logs = [store / f"slurm-{array}-{task}.log" for task in tasks]

    def have_begun() -> bool:
        jobs = cluster.jobs()
        assert jobs.keys() >= set(names), (jobs, cluster.logs(), logs_of(store))
        return all(jobs[name] == "RUNNING" for name in names) and all(
            log.exists() and "plan " in log.read_text() for log in logs
        )

    wait_until(have_begun, f"{names} begin", PATIENCE_S)
    there = len(parts_of(store))
    wait_until(
        lambda: have_begun() and len(parts_of(store)) > there, f"{names} publish", PATIENCE_S
    )


def parts_of(store: Path) -> list[Path]:
    return list((store / "parts").glob("part-*.parquet"))


def logs_of(store: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in store.glob("slurm-*.log")}


def restarts(cluster: Cluster, job: str) -> int:
    shown = cluster.run("scontrol", "show", "job", job)
    return int(shown.partition("Restarts=")[2].split()[0])


def state(cluster: Cluster, job: str) -> str:
    return cluster.run("scontrol", "show", "job", job).partition("JobState=")[2].split()[0]


def test_a_disturbed_array_completes_a_sweep(cluster: Cluster, tmp_path: Path) -> None:
    store = tmp_path / "sl urm%1"
    options = ["--slurm", str(JOBS), "--workers", "1"]
    finish(start([*SWEEP, "--out", str(store), *options], cwd=tmp_path))
    array = cluster.submit(store / SCRIPT)

    wait_for_shards(cluster, array, (1, 2), store)
    cluster.run("scancel", f"{array}_1")
    cluster.run("scontrol", "requeue", f"{array}_2")
    wait_for_shards(cluster, array, (3, 4), store)
    cluster.run("scancel", "--signal=KILL", "--full", f"{array}_3")
    # What a job gets a minute before its time ends (#SBATCH --signal=B:TERM@60).
    # scancel sends it again after 5 s, and fails as the job has ended.
    cluster.run("scancel", "--signal=TERM", "--batch", f"{array}_4", check=False)
    wait_for_shards(cluster, array, (5, 6), store)
    urgent = tmp_path / "urgent.sh"
    urgent.write_text("#!/bin/bash\nsleep 2\n")
    high = cluster.submit(
        urgent, "--partition=high", "--cpus-per-task=2", "--mem=1M", "--output=/dev/null"
    )
    wait_until(lambda: high not in cluster.jobs(), "the urgent job ends", PATIENCE_S)
    wait_until(lambda: not cluster.jobs(), f"the array ends ({cluster.jobs()})", PATIENCE_S)

    states = [state(cluster, f"{array}_{task}") for task in range(1, JOBS + 1)]
    assert states == ["CANCELLED", "COMPLETED", "CANCELLED", "FAILED", "COMPLETED", "COMPLETED"]
    assert [restarts(cluster, f"{array}_{task}") for task in (2, 5, 6)] == [1, 1, 1]
    assert "\nmmcl: ended by SIGTERM; resume with: " in logs_of(store)[f"slurm-{array}-4.log"]
    found = sweep.read_status(store)
    assert 0 < found.done < found.runs == RUNS, "two jobs were stopped for good"

    again = cluster.submit(store / SCRIPT)
    wait_until(lambda: not cluster.jobs(), "the second array ends", PATIENCE_S)
    states = [state(cluster, f"{again}_{task}") for task in range(1, JOBS + 1)]
    assert states == ["COMPLETED"] * JOBS
    assert sweep.load(store, ["run_id"])["run_id"].to_pylist() == list(range(RUNS))
    local = start([*SWEEP, "--out", str(tmp_path / "local"), "--workers", "2"])
    finish(local, deadline_s=PATIENCE_S)
    assert same_parts(parts(store), parts(tmp_path / "local"))

"""A full disk ends a sweep with one sentence; what was written stays, and the sweep goes on."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmcl_fast import sweep
from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import DataError, OutputError
from mmcl_fast.sweep.execute import runner as driver_module
from tests.sweep.disturbance import finish, parts, same_parts, start

pytestmark = pytest.mark.process

SWEEP = ["--n", "20", "--epochs", "400", "--data", "reduced", "--evaluate-every", "0"]
SWEEP += ["--grid", "mu_norm=1,2,3,4", "--grid", "m=4,8", "--seeds", "40"]


def test_a_file_that_cannot_grow(tmp_path: Path) -> None:
    """A limit on file sizes gives the system's error at the same place as a full disk."""
    store = tmp_path / "s"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    said = finish(start([*SWEEP, "--out", str(store)], preexec_fn=limit), expected=2)
    assert "mmcl: error: part-00000" in said
    assert "File too large" in said
    assert not parts(store)
    finish(start([*SWEEP, "--out", str(store)]))
    assert sweep.read_status(store).done == 320


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(mount)]
    if not sys.platform.startswith("linux") or shutil.which("mount") is None:
        pytest.skip("no mount here")
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path, monkeypatch) -> None:
    plan = sweep.make_plan(
        TrainConfig(n=20, m=8, epochs=400, data="reduced", evaluate_every=0),
        grid={"mu_norm": [1, 2, 3, 4], "m": [4, 8]},
        seeds=40,
    )
    with pytest.raises(DataError, match=r"disk: expected 320 runs to fit into 0.* MiB, got about"):
        sweep.run_sweep(plan, small_disk / "s")
    assert not (small_disk / "s" / "plan.parquet").exists()
    # A disk that fills up later is not foreseen.
    monkeypatch.setattr(driver_module, "disk_bytes", lambda *a: 0)
    with pytest.raises(OutputError, match="No space left on device"):
        sweep.run_sweep(plan, small_disk / "s")
    kept = parts(small_disk / "s")
    assert not list((small_disk / "s" / "parts").glob(".*")), "half a part takes room"
    shutil.copytree(small_disk / "s", tmp_path / "larger")
    result = sweep.run_sweep(plan, tmp_path / "larger")
    assert result.counts == {"finished": 320}
    assert result.computed == 320 - sum(t.num_rows for t in kept.values())
    sweep.run_sweep(plan, tmp_path / "calm")
    assert same_parts(parts(tmp_path / "larger"), parts(tmp_path / "calm"))

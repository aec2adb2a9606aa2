"""The same sweep on a Ray cluster of this machine, with workers and driver killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmcl_fast import sweep
from tests.sweep.disturbance import (
    PAPER,
    descendants,
    disturb,
    finish,
    parts,
    same_parts,
    start,
    wait_for_parts,
)

pytestmark = pytest.mark.process

pytest.importorskip("ray")
TASK = "ray::_perform"  # Ray names a worker's process after what it does
SWEEP = [*PAPER, "--seeds", "120"]
ON_RAY = ["--executor", "ray", "--workers", "2", "--max-worker-failures", "1000"]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("calm") / "store"
    finish(start([*SWEEP, "--out", str(store)]))
    return store


def test_kills_lose_nothing(calm: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    hit = disturb([*SWEEP, *ON_RAY, "--out", str(store)], store, kills=4, pause=0.3, word=TASK)
    assert hit >= 3
    assert sweep.read_status(store).retried > 0
    assert same_parts(parts(store), parts(calm))
    assert sweep.load(store, ["run_id"])["run_id"].to_pylist() == list(range(1200))


def test_a_local_cluster_listens_on_loopback_only(calm: Path, tmp_path: Path) -> None:
    """Whatever the environment says; and it leaves no token that a later cluster would require."""
    store, home = tmp_path / "store", tmp_path / "home"
    home.mkdir()
    inherited = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "HOME": str(home)}
    driver = start([*SWEEP, *ON_RAY, "--out", str(store)], env=os.environ | inherited)
    wait_for_parts(store, 1, driver)
    ours = set(descendants(driver.pid, ""))
    sockets = {
        f"socket:[{inode}]"
        for inode, address in _listening()
        if address not in ("0100007F", "0000000000000000FFFF00000100007F")
        and address != "00000000000000000000000001000000"
    }
    seen = 0
    for pid in ours:
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue  # it has ended meanwhile
        seen += len(links)
        assert not sockets & set(links), f"process {pid} listens to the outside"
    assert seen > 0
    finish(driver)
    assert not list(home.rglob("*token*"))


def test_a_cluster_that_dies_is_said_to(tmp_path: Path) -> None:
    """No shard is blamed for it."""
    store = tmp_path / "store"
    driver = start([*SWEEP, *ON_RAY, "--out", str(store)])
    wait_for_parts(store, 1, driver)
    (raylet,) = [k for k in descendants(driver.pid, "raylet/raylet") if is_raylet(k)]
    os.kill(raylet, signal.SIGKILL)
    said = finish(driver, expected=2)
    assert "executor ray: expected a cluster that runs, got " in said
    assert sweep.read_status(store).put_away == []


def is_raylet(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"raylet")


@pytest.mark.slow
def test_joining_a_cluster_with_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account has one, as after `ray get-auth-token --generate`."""
    folder = tmp_path / ".ray"
    folder.mkdir()
    (folder / "auth_token").write_text("0123456789abcdef" * 3)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    ray += ["--port=6397", "--num-cpus=1", "--include-dashboard=false", "--disable-usage-stats"]
    ray += ["--node-ip-address=127.0.0.1"]
    environment = os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
    head = subprocess.Popen(
        ray, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert head.stdout is not None
        assert any("Ray runtime started" in line for line in head.stdout)
        command = ["--n", "12", "--m", "4", "--epochs", "2", "--data", "reduced"]
        command += ["--executor", "ray", "--address", "127.0.0.1:6397"]
        monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # it listens on loopback only
        finish(start([*command, "--out", str(tmp_path / "s")]))
        assert sweep.load(tmp_path / "s").num_rows == 1
    finally:
        head.terminate()
        head.communicate(timeout=60)


def _listening() -> list[tuple[str, str]]:
    """Inode and address of every listening TCP socket of this machine."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found.append((fields[9], fields[1].partition(":")[0]))
    return found


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    command = [
        *SWEEP,
        "--executor",
        "ray",
        "--address",
        "127.0.0.1:1",
        "--out",
        str(tmp_path / "s"),
    ]
    said = finish(start(command), expected=2)
    assert "executor ray: expected a cluster at 127.0.0.1:1, got" in said


def test_without_ray_the_package_is_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no ray here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process: subprocess.Popen[bytes] = start([*SWEEP, *ON_RAY, "--out", str(tmp_path / "s")])
    assert "expected the package ray (pip install 'mmcl-fast[ray]')" in finish(process, expected=2)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (
            "import ray",
            "expected RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 in the environment before ray",
        ),
        (
            "import os; os.environ['RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'] = '0'\n"
            "import ray; ray.is_initialized = lambda: True",
            "expected a process without ray.init, got one with it",
        ),
    ],
    ids=["imported", "in use"],
)
def test_a_process_that_has_ray_already(before: str, message: str, tmp_path: Path) -> None:
    """No cluster that listens to the outside, and nobody else's cluster is shut down."""
    code = f"""{before}
from mmcl_fast import TrainConfig, sweep
plan = sweep.make_plan(TrainConfig(n=12, m=4, epochs=2, data="reduced"))
try:
    sweep.run_sweep(plan, {str(tmp_path / "s")!r}, policy=sweep.Policy(executor="ray"))
except ValueError as error:
    print(error)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=150
    )
    assert message in done.stdout, done.stderr

"""Workers that hang are replaced, and none outlives its driver, whatever it computes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmcl_fast import sweep
from mmcl_fast.config import TrainConfig
from mmcl_fast.sweep.execute.liveness import BEAT_SECONDS, GRACE_SECONDS
from mmcl_fast.sweep.execute.local_pool import LocalPool
from mmcl_fast.sweep.execute.worker_pool import Died, Job
from mmcl_fast.sweep.store.plan_file import write_plan
from mmcl_fast.sweep.store.store import Store
from tests.sweep.disturbance import DEADLINE_S, descendants, finish, start

pytestmark = pytest.mark.process

PROMISED_S = 5.0  # docs/sweeps.md
# Minutes of native code, which runs no handler of Python's main thread.
LONG = TrainConfig(n=200, m=20, epochs=4_000_000, data="reduced", evaluate_every=0)
FLAGS = ["--n", "200", "--m", "20", "--epochs", "4000000", "--data", "reduced"]
FLAGS += ["--evaluate-every", "0", "--workers", "1"]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def training(driver: subprocess.Popen[bytes], count: int) -> list[int]:
    """The workers of a driver, once each has a thread that computes without Python."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        workers = descendants(driver.pid)
        if len(workers) == count and all(is_in_native_code(pid) for pid in workers):
            return workers
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.2)
    raise AssertionError("the workers did not begin to train")


def is_in_native_code(pid: int) -> bool:
    """Whether the core is loaded, and half a second of CPU time passes in a second."""
    if "_native" not in Path(f"/proc/{pid}/maps").read_text():
        return False
    before = cpu_seconds(pid)
    time.sleep(1.0)
    return cpu_seconds(pid) - before > 0.1


def ended_within(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(is_running, pids)):
        time.sleep(0.05)
    return not any(map(is_running, pids))


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)],
)
def test_workers_end_with_their_driver(number: signal.Signals, tmp_path: Path) -> None:
    driver = start([*FLAGS, "--out", str(tmp_path / "s")])
    workers = training(driver, 1)
    driver.send_signal(number)
    assert ended_within(workers, PROMISED_S)
    if number == signal.SIGKILL:
        driver.communicate()
        return
    said = finish(driver, expected=128 + number)
    assert f"mmcl: ended by {number.name}; resume with: mmcl sweep --n 200" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "s" / "parts").iterdir())


def test_a_worker_in_native_code_ends_on_sigterm(tmp_path: Path) -> None:
    driver = start([*FLAGS, "--out", str(tmp_path / "s"), "--max-worker-failures", "100"])
    (worker,) = training(driver, 1)
    os.kill(worker, signal.SIGTERM)
    assert ended_within([worker], PROMISED_S)
    driver.send_signal(signal.SIGTERM)
    finish(driver, expected=143)


def test_a_worker_ends_on_sigterm_while_it_loads_a_module_that_catches_it(tmp_path: Path) -> None:
    """As torch does while it loads NumPy, which then cannot be loaded again."""
    (tmp_path / "torch.py").write_text(
        "import os, signal\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "except BaseException:\n"
        "    raise ImportError('cannot load module more than once per process') from None\n"
    )
    ours, theirs = os.pipe()
    command = [sys.executable, "-P", "-m", "mmcl_fast.sweep.execute.worker"]
    ended = subprocess.run(
        [*command, str(os.getpid()), str(theirs)],
        check=False,
        input=b"",
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        pass_fds=[theirs],
    )
    os.close(ours)
    os.close(theirs)
    assert ended.stderr == b""
    assert ended.returncode == 143


def test_where_the_system_has_no_parent_death_signal(tmp_path: Path) -> None:
    """The thread alone ends a worker, in native code that releases the interpreter's lock."""
    child = (
        "import os, sys, time, ctypes\n"
        "from mmcl_fast.sweep.execute.liveness import Liveness\n"
        "Liveness(int(sys.argv[1]), lambda seconds: None).start()\n"
        "print(os.getpid(), flush=True)\n"
        "ctypes.CDLL(None).sleep(60)\n"
    )
    parent = (
        "import os, subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {child!r}, str(os.getpid())])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    assert ended_within([pid], BEAT_SECONDS + GRACE_SECONDS + 1.5)
    process.communicate()


def test_a_stopped_worker_is_replaced(tmp_path: Path) -> None:
    plan = sweep.make_plan(LONG)
    Store(tmp_path).prepare()
    write_plan(plan, tmp_path)
    with LocalPool(1, timeout=4.0) as pool:
        pool.submit(Job(str(tmp_path), 0, 1))
        worker = pool._slots[0].worker
        assert worker is not None
        while not worker.ready:
            assert pool._receive(*pool._messages.get()) == []
        os.kill(worker.pid, signal.SIGSTOP)
        (outcome,) = pool.wait()
        assert pool.silent_seconds() == {}
    assert isinstance(outcome, Died)
    assert outcome.reason.startswith("no sign of life for ")
    assert not is_running(worker.pid)


def test_a_worker_that_computes_is_not_hung(tmp_path: Path) -> None:
    """A long run reports CPU time, though it answers nothing else for longer than the timeout."""
    timeout, epochs, busy = 5.0, 40_000, 0.0
    while busy < 1.1 * timeout:  # however quick the processor is
        epochs *= 2
        store = tmp_path / f"{epochs}"
        result = sweep.run_sweep(
            sweep.make_plan(LONG.replace(epochs=epochs)),
            store,
            policy=sweep.Policy(workers=1, worker_timeout=timeout),
        )
        assert result.counts == {"finished": 1}
        busy = result.busy
    assert sweep.read_status(store).retried == 0

"""When a worker counts as hung; without processes."""

import pytest

from mmcl_fast.sweep.execute import local_pool
from mmcl_fast.sweep.execute.local_pool import CHECK_SECONDS, LocalPool
from mmcl_fast.sweep.execute.worker_pool import Job
from mmcl_fast.sweep.execute.worker_process import WorkerProcess


class Clock:
    """Monotonic time that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(local_pool.time, "monotonic", lambda: self.now)


class Silent(WorkerProcess):
    """A worker with a job that reports nothing."""

    def __init__(self, now: float) -> None:
        self.job, self.timed_out, self._last_sign, self.kills = Job("s", 3, 1), False, now, 0

    def kill(self) -> None:
        self.kills += 1


def pool_with(worker: Silent) -> LocalPool:
    pool = LocalPool(1, timeout=10.0)
    pool._slots[0].worker = worker
    return pool


def test_a_silent_worker_is_killed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    worker = Silent(clock.now)
    pool = pool_with(worker)
    for _ in range(10):
        clock.now += CHECK_SECONDS
        pool._kill_silent()
    assert worker.kills == 0
    assert pool.silent_seconds() == {3: pytest.approx(10.0)}
    for _ in range(3):
        clock.now += CHECK_SECONDS
        pool._kill_silent()
    assert worker.kills == 1


def test_time_in_which_the_driver_was_stopped_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch system may suspend a whole job, the driver and its workers, for hours."""
    clock = Clock(monkeypatch)
    worker = Silent(clock.now)
    pool = pool_with(worker)
    clock.now += 4000.0
    pool._kill_silent()
    assert worker.kills == 0
    assert worker.silent_seconds <= 2 * CHECK_SECONDS
    for _ in range(12):
        clock.now += CHECK_SECONDS
        pool._kill_silent()
    assert worker.kills == 1, "it did not go on with the driver"


def test_a_job_that_has_just_been_given(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    worker = Silent(clock.now)
    pool = pool_with(worker)
    clock.now += 4000.0
    worker._last_sign = clock.now
    pool._kill_silent()
    assert worker.silent_seconds == 0.0, "not before it had begun"

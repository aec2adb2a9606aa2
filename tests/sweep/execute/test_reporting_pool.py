"""A running sweep tells its store what it has in hand."""

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from mmcl_fast.sweep.execute import reporting_pool
from mmcl_fast.sweep.execute.reporting_pool import ReportingPool
from mmcl_fast.sweep.execute.worker_pool import Done, Job, Outcome, Pool
from mmcl_fast.sweep.store.drivers import driver_files, read_driver


class Slow(Pool):
    """A pool whose jobs end when they are told to."""

    slots = 2

    def __init__(self) -> None:
        self.go, self.jobs = threading.Event(), list[Job]()

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def wait(self) -> list[Outcome]:
        assert self.go.wait(20)
        return [Done(self.jobs.pop(0).shard, {}, 0.0)]

    def silent_seconds(self) -> Mapping[int, float]:
        return {4: 0.25}

    def close(self) -> None:
        self.jobs.clear()


def shards(folder: Path) -> list[int]:
    (path,) = driver_files(folder)
    return [work.shard for work in read_driver(path).work]


def wait_until(condition: object) -> None:
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come true")


def test_what_is_in_hand_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting_pool, "REPORT_SECONDS", 0.02)
    inner = Slow()
    with ReportingPool(inner, tmp_path) as pool:
        for shard in (4, 9):
            pool.submit(Job("store", shard, 1))
        wait_until(lambda: driver_files(tmp_path) and shards(tmp_path) == [4, 9])
        driver = read_driver(driver_files(tmp_path)[0])
        assert driver.workers == 2
        assert [work.silent for work in driver.work] == [0.25, None]
        inner.go.set()
        assert [outcome.shard for outcome in pool.wait()] == [4]
        wait_until(lambda: shards(tmp_path) == [9])
    assert not (tmp_path / "drivers").exists(), "it has ended"


def test_a_store_that_cannot_be_written_ends_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting_pool, "REPORT_SECONDS", 0.01)
    (tmp_path / "drivers").write_text("a file")
    with ReportingPool(Slow(), tmp_path) as pool:
        pool.submit(Job("store", 1, 1))
        threading.Event().wait(0.1)
        assert pool._thread.is_alive()

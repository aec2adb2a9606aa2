"""A pool that tells its store what it is at, for `mmcl status`."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from mmcl_fast.errors import OutputError
from mmcl_fast.sweep.execute.worker_pool import Broken, Job, Outcome, Pool
from mmcl_fast.sweep.store.drivers import REPORT_SECONDS, Driver, Work, report, withdraw


class ReportingPool(Pool):
    """Another pool, and a thread that reports every `REPORT_SECONDS` what it has in hand.

    Args:
        pool: The pool.
        store: Directory of the store.
    """

    def __init__(self, pool: Pool, store: Path) -> None:
        self._pool, self._store = pool, store
        self._since: dict[int, float] = {}  # replaced, not changed: the thread reads it
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> Self:
        self._pool.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        try:
            self._pool.__exit__(kind, error, trace)
        finally:
            self._thread.join()
            withdraw(self._store, self._driver())

    @property
    def slots(self) -> int:
        """See `Pool.slots`."""
        return self._pool.slots

    def submit(self, job: Job) -> None:
        """See `Pool.submit`."""
        self._since = {**self._since, job.shard: time.monotonic()}
        self._pool.submit(job)

    def wait(self) -> list[Outcome]:
        """See `Pool.wait`."""
        outcomes = self._pool.wait()
        ended = {outcome.shard for outcome in outcomes if not isinstance(outcome, Broken)}
        self._since = {k: start for k, start in self._since.items() if k not in ended}
        return outcomes

    def silent_seconds(self) -> Mapping[int, float]:
        """See `Pool.silent_seconds`."""
        return self._pool.silent_seconds()

    def close(self) -> None:
        """See `Pool.close`."""
        self._pool.close()

    def _driver(self) -> Driver:
        silent, now = self._pool.silent_seconds(), time.monotonic()
        work = tuple(Work(k, now - start, silent.get(k)) for k, start in self._since.items())
        return Driver(socket.gethostname(), os.getpid(), self.slots, time.time(), work)

    def _report(self) -> None:
        while not self._ended.wait(REPORT_SECONDS):
            # What cannot be written grows old there, and is shown as such. A full disk ends the
            # sweep where it matters: at the next part.
            with suppress(OutputError):
                report(self._store, self._driver())


__all__ = ["ReportingPool"]

"""Workers as processes on this machine: one per core with one thread, or one per GPU."""

from __future__ import annotations

import os
import queue
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mmcl_fast.errors import OutputError
from mmcl_fast.sweep.execute.worker_pool import Died, Job, Outcome, Pool
from mmcl_fast.sweep.execute.worker_process import WorkerProcess

# Libraries read these when they are loaded. More threads than cores, over all processes, slow each
# other down.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
ONE_THREAD = dict.fromkeys(THREAD_VARIABLES, "1")
FAILED_STARTS, KILLED_STARTS = 3, 10
"""Starts in a row in one slot that end the sweep: by the worker's own error, or by a signal."""
BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS = 0.25, 10.0
STOP_SECONDS = 3.0
CHECK_SECONDS = 1.0
WORKER_TIMEOUT_SECONDS = 300.0


@dataclass
class _Slot:
    """A place for a worker, which outlives it.

    Attributes:
        worker: The process, or None: none runs.
        waiting: The job of the next worker, which starts at `due`.
        due: Monotonic time.
        false_starts: Workers in a row that died before they were ready.
    """

    worker: WorkerProcess | None = None
    waiting: Job | None = None
    due: float = 0.0
    false_starts: int = 0

    @property
    def is_free(self) -> bool:
        return self.waiting is None and (self.worker is None or self.worker.job is None)


class LocalPool(Pool):
    """See the module's documentation and `worker_pool.Pool`.

    Args:
        workers: Number of processes, >= 1.
        gpus: Number of GPUs, assigned to workers in turn; 0: none.
        path: Where workers look for modules first; empty: where Python does.
        timeout: Seconds without a sign of life after which a worker with a job is killed.
    """

    def __init__(
        self,
        workers: int,
        gpus: int = 0,
        path: Sequence[str] = (),
        timeout: float = WORKER_TIMEOUT_SECONDS,
    ) -> None:
        self._slots = [_Slot() for _ in range(workers)]
        self._gpus, self._path, self._timeout = gpus, [*filter(None, path)], timeout
        self._messages: queue.SimpleQueue[tuple[_Slot, bytes]] = queue.SimpleQueue()
        self._checked = time.monotonic()

    def close(self) -> None:
        """See `Pool.close`."""
        workers = [slot.worker for slot in self._slots if slot.worker is not None]
        for worker in workers:
            worker.dismiss()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in workers:
            try:
                worker.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait(None)
            worker.close()
        self._slots = [_Slot() for _ in self._slots]

    @property
    def slots(self) -> int:
        """See `Pool.slots`."""
        return len(self._slots)

    def silent_seconds(self) -> Mapping[int, float]:
        """See `Pool.silent_seconds`."""
        # Another thread may ask: a job may end meanwhile.
        workers = [slot.worker for slot in self._slots]
        jobs = [(worker.job, worker.silent_seconds) for worker in workers if worker is not None]
        return {job.shard: seconds for job, seconds in jobs if job is not None}

    def submit(self, job: Job) -> None:
        """See `Pool.submit`."""
        free = [slot for slot in self._slots if slot.is_free]
        slot = next((s for s in free if s.worker is not None), free[0])
        if slot.worker is not None:
            slot.worker.give(job)
        else:
            slot.waiting = job
            self._start_waiting()

    def wait(self) -> list[Outcome]:
        """See `Pool.wait`."""
        outcomes: list[Outcome] = []
        while not outcomes:
            self._start_waiting()
            due = [slot.due - time.monotonic() for slot in self._slots if slot.waiting]
            with suppress(queue.Empty):
                seconds = max(0.0, min([CHECK_SECONDS, *due]))
                outcomes += self._receive(*self._messages.get(timeout=seconds))
                while True:  # what else has come
                    outcomes += self._receive(*self._messages.get_nowait())
            self._kill_silent()
        return outcomes

    def _start_waiting(self) -> None:
        """Start the workers that are due."""
        for index, slot in enumerate(self._slots):
            if slot.waiting is None or slot.due > time.monotonic():
                continue
            slot.worker = WorkerProcess(index, self._environment(index), self._announcer(slot))
            slot.worker.give(slot.waiting)
            slot.waiting = None

    def _announcer(self, slot: _Slot) -> Callable[[bytes], object]:
        return lambda text: self._messages.put((slot, text))

    def _environment(self, index: int) -> dict[str, str]:
        environment = os.environ | ONE_THREAD
        if self._path:
            environment["PYTHONPATH"] = os.pathsep.join(self._path)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = _visible(index % self._gpus)
        return environment

    def _receive(self, slot: _Slot, text: bytes) -> list[Outcome]:
        """Outcomes in the messages of a worker; their end means that it died."""
        assert slot.worker is not None
        if not text:
            return self._remove(slot, slot.worker)
        outcomes = slot.worker.receive(text)
        if slot.worker.ready:
            slot.false_starts = 0
        return outcomes

    def _remove(self, slot: _Slot, worker: WorkerProcess) -> list[Outcome]:
        died = worker.died()
        worker.close()
        slot.worker = None
        if died is None:
            return []
        if worker.ready:
            return [died]
        self._retry_start(slot, worker, died)
        return []

    def _retry_start(self, slot: _Slot, worker: WorkerProcess, died: Died) -> None:
        """Give the job of a worker that did not start to another one, later each time."""
        slot.false_starts += 1
        by_itself = worker.wait(None) >= 0
        if slot.false_starts >= (FAILED_STARTS if by_itself else KILLED_STARTS):
            raise OutputError(
                f"workers: expected processes that start, got {slot.false_starts} in a row that "
                f"did not ({died.reason}; their own messages are above)"
            )
        pause = BACK_OFF_SECONDS * 2.0 ** (slot.false_starts - 1)
        slot.due = time.monotonic() + min(pause, LONGEST_BACK_OFF_SECONDS)
        slot.waiting = worker.job

    def _kill_silent(self) -> None:
        """Kill workers that gave no sign of life for too long; the end of messages reports it."""
        # A batch system may stop the driver and its workers together, for hours.
        now = time.monotonic()
        stopped = max(0.0, now - self._checked - 2 * CHECK_SECONDS)
        self._checked = now
        for slot in self._slots:
            worker = slot.worker
            if worker is None or worker.job is None or worker.timed_out:
                continue
            worker.excuse(stopped)
            if worker.silent_seconds > self._timeout:
                worker.timed_out = True
                worker.kill()


def _visible(index: int) -> str:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[index] if given else str(index)


__all__ = ["WORKER_TIMEOUT_SECONDS", "LocalPool"]

"""Workers as processes on this machine: one per core with one thread, or one per GPU."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from mmcl_fast.errors import OutputError
from mmcl_fast.sweep.execute.worker_pool import Broken, Died, Done, Job, Outcome, Pool

# Libraries read these when they are loaded. More threads than cores, over all processes, slow each
# other down.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
ONE_THREAD = dict.fromkeys(THREAD_VARIABLES, "1")
MAX_FALSE_STARTS = 10
STOP_SECONDS = 5.0


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    slot: int
    job: Job | None = None
    ready: bool = False
    unread: bytes = b""


class LocalPool(Pool):
    """See the module's documentation and `worker_pool.Pool`.

    Args:
        workers: Number of processes, >= 1.
        gpus: Number of GPUs, assigned to workers in turn; 0: none.
        path: Where workers look for modules first; empty: where Python does.
    """

    def __init__(self, workers: int, gpus: int = 0, path: Sequence[str] = ()) -> None:
        self._slots, self._gpus, self._path = workers, gpus, [*filter(None, path)]
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._false_starts = 0

    def close(self) -> None:
        """See `Pool.close`."""
        for worker in self._workers:
            _close(worker.process.stdin)
            if worker.job is not None:
                worker.process.terminate()
        for worker in self._workers:
            try:
                worker.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            _close(worker.process.stdout)
        self._workers.clear()
        self._selector.close()

    @property
    def slots(self) -> int:
        """See `Pool.slots`."""
        return self._slots

    @property
    def processes(self) -> list[int]:
        """Process ids of the workers that are alive."""
        return [worker.process.pid for worker in self._workers]

    def submit(self, job: Job) -> None:
        """See `Pool.submit`."""
        idle = next((w for w in self._workers if w.job is None), None)
        worker = idle or self._start()
        worker.job = job
        with suppress(BrokenPipeError):  # it died while idle; the end of its output reports it
            _stream(worker.process.stdin).write(json.dumps(asdict(job)).encode() + b"\n")
            _stream(worker.process.stdin).flush()

    def wait(self) -> list[Outcome]:
        """See `Pool.wait`."""
        outcomes: list[Outcome] = []
        while not outcomes:
            for key, _ in self._selector.select():
                outcomes += self._receive(key.data)
        return outcomes

    def _start(self) -> _Worker:
        taken = {worker.slot for worker in self._workers}
        slot = next(k for k in range(self._slots) if k not in taken)
        environment = os.environ | ONE_THREAD
        if self._path:
            environment["PYTHONPATH"] = os.pathsep.join(self._path)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = _visible(slot % self._gpus)
        process = subprocess.Popen(
            [sys.executable, "-m", "mmcl_fast.sweep.execute.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            # A terminal sends Ctrl-C to its own group; workers are the driver's to stop.
            process_group=0,
        )
        worker = _Worker(process, slot)
        self._workers.append(worker)
        self._selector.register(_stream(process.stdout), selectors.EVENT_READ, worker)
        return worker

    def _receive(self, worker: _Worker) -> list[Outcome]:
        """Outcomes in the output of a worker; the end of its output means that it died."""
        text = os.read(_stream(worker.process.stdout).fileno(), 1 << 16)
        if not text:
            return self._remove(worker)
        *lines, worker.unread = (worker.unread + text).split(b"\n")
        outcomes: list[Outcome] = []
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            if "ready" in message:
                worker.ready, self._false_starts = True, 0
                continue
            ((kind, fields),) = message.items()
            worker.job = None
            outcomes.append({"Done": Done, "Broken": Broken}[kind](**fields))
        return outcomes

    def _remove(self, worker: _Worker) -> list[Outcome]:
        self._selector.unregister(_stream(worker.process.stdout))
        _close(worker.process.stdout)
        _close(worker.process.stdin)
        status = worker.process.wait()
        self._workers.remove(worker)
        if worker.job is None:
            return []
        if worker.ready:
            return [Died(worker.job.shard, _cause(status))]
        self._false_starts += 1
        if self._false_starts == MAX_FALSE_STARTS:
            raise OutputError(
                f"workers: expected processes that start, got {MAX_FALSE_STARTS} in a row that "
                f"did not ({_cause(status)}; their own messages are above)"
            )
        self.submit(worker.job)  # it had not started
        return []


def _cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"{name}{hint}"


def _visible(index: int) -> str:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[index] if given else str(index)


def _stream(pipe: Any) -> Any:
    assert pipe is not None
    return pipe


def _close(pipe: Any) -> None:
    with suppress(BrokenPipeError):  # the reader of unsent bytes has ended
        _stream(pipe).close()


__all__ = ["LocalPool"]

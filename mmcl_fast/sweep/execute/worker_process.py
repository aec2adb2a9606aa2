"""One worker process as its driver sees it: messages, signs of life, and how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from mmcl_fast.errors import OutputError
from mmcl_fast.operating_system.processes import for_child, is_closed_pipe
from mmcl_fast.sweep.execute.worker import identity
from mmcl_fast.sweep.execute.worker_pool import Broken, Died, Done, Job, Outcome

LEAST_CPU_SECONDS = 1e-3
"""Of CPU time between two reports that count as a sign of life."""


class WorkerProcess:
    """A running worker, with a job or idle.

    Args:
        slot: Number of its place in the pool.
        environment: Environment variables.
        announce: Called in another thread with each piece of its messages for `receive`, the last
            one empty: it has ended.

    Attributes:
        slot: As given.
        job: The job in hand, or None.
        ready: It has loaded its modules, and is of the driver's version.
        timed_out: It was killed because it gave no sign of life.
    """

    def __init__(
        self, slot: int, environment: Mapping[str, str], announce: Callable[[bytes], object]
    ) -> None:
        self.slot, self.ready, self.timed_out = slot, False, False
        self.job: Job | None = None
        ours, theirs = os.pipe()
        number, inheritance = for_child(theirs)
        module = "mmcl_fast.sweep.execute.worker"
        # -P: not from the current folder, which `python -m` otherwise searches first.
        command = [sys.executable, "-P", "-m", module, str(os.getpid()), str(number)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=2,  # what libraries print there is no message
                env=environment,
                **inheritance,
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        # A thread, as not every system can wait for several pipes.
        self._reader = threading.Thread(target=_announce, args=(ours, announce), daemon=True)
        self._reader.start()
        self._unread = b""
        self._cpu_seconds, self._last_sign = 0.0, time.monotonic()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def silent_seconds(self) -> float:
        """Seconds since it was last seen to compute."""
        return time.monotonic() - self._last_sign

    def excuse(self, seconds: float) -> None:
        """Do not count time in which nobody could have seen it compute."""
        self._last_sign = min(time.monotonic(), self._last_sign + seconds)

    def give(self, job: Job) -> None:
        """Give it a job."""
        self.job, self._last_sign = job, time.monotonic()
        assert self._process.stdin is not None
        with _unread_is_lost():  # it died while idle; the end of its output reports it
            self._process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, text: bytes) -> list[Outcome]:
        """Outcomes among its messages.

        Args:
            text: The next piece of them.

        Raises: OutputError: it is of another version or folder than this process.
        """
        *lines, self._unread = (self._unread + text).split(b"\n")
        outcomes = []
        for line in lines:
            ((kind, content),) = json.loads(line).items()
            if kind == "cpu":
                self._note_cpu(content)
            elif kind == "ready":
                check_identity(content)
                self.ready = True
            else:
                self.job = None
                outcomes.append({"Done": Done, "Broken": Broken}[kind](**content))
        return outcomes

    def _note_cpu(self, seconds: float) -> None:
        if seconds - self._cpu_seconds >= LEAST_CPU_SECONDS:
            self._cpu_seconds, self._last_sign = seconds, time.monotonic()

    def died(self) -> Died | None:
        """What became of its job after its end; None: it had none."""
        status = self.wait(None)
        if self.job is None:
            return None
        silence = f"no sign of life for {self.silent_seconds:.0f} s"
        return Died(self.job.shard, silence if self.timed_out else cause(status))

    def wait(self, seconds: float | None) -> int:
        """Wait for its end, and return its exit status.

        Raises: subprocess.TimeoutExpired: it has not ended after `seconds`.
        """
        return self._process.wait(seconds)

    def dismiss(self) -> None:
        """Ask it to end: at once, if it has a job."""
        self._close_input()
        if self.job is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """Release what a worker that has ended was given."""
        self._close_input()
        self._reader.join()

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with _unread_is_lost():
            self._process.stdin.close()


def _announce(channel: int, announce: Callable[[bytes], object]) -> None:
    """Pass on what a worker sends, until it ends."""
    with os.fdopen(channel, "rb", buffering=0) as stream:
        while text := stream.read(1 << 16):
            announce(text)
    announce(b"")


@contextmanager
def _unread_is_lost() -> Iterator[None]:
    """Go on where the reader of unsent bytes has ended."""
    try:
        yield
    except OSError as error:
        if not is_closed_pipe(error):
            raise


def check_identity(theirs: Any) -> None:
    """Raise OutputError where a worker's mmcl_fast is not the driver's."""
    ours = identity()
    if theirs != ours:
        got = theirs if isinstance(theirs, dict) else {}
        raise OutputError(
            f"workers: expected mmcl_fast {ours['version']} of {ours['folder']}, as in this "
            f"process, got {got.get('version', 'another')} of {got.get('folder', 'elsewhere')}; "
            "install it where this Python finds it first (PYTHONPATH precedes)"
        )


def cause(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal has a number only
        name = f"signal {-status}"
    return f"{name} (out of memory?)" if name == "SIGKILL" else name


__all__ = ["WorkerProcess", "cause", "check_identity"]

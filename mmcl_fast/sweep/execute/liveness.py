"""The signs of life of a worker, and its end: with its driver, or soon after SIGTERM.

A worker may be in native code for minutes, where Python runs no signal handler of the main thread.
A thread of its own does what must not wait for that. Imports the standard library alone, so that
it runs before the worker loads any other module.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from mmcl_fast.operating_system.processes import (
    has_lost_parent,
    is_closed_pipe,
    terminate_self,
)

BEAT_SECONDS = 1.0
GRACE_SECONDS = 2.0
"""For Python to remove the file being written, before the process ends whatever it computes."""


class Liveness(threading.Thread):
    """Reports the CPU time of the other threads each second, and ends the process when it must.

    Args:
        driver: Process id of the driver, the parent of this process.
        report: Called with the CPU time in seconds of this process without this thread. It ends
            the process where the driver has ended: its pipe is closed.
    """

    def __init__(self, driver: int, report: Callable[[float], None]) -> None:
        super().__init__(daemon=True)
        self._driver, self._report = driver, report
        self._woken, self._wake = socket.socketpair()  # Windows waits for no other descriptors
        self._wake.settimeout(0)
        signal.signal(signal.SIGTERM, _exit_at_once)
        signal.set_wakeup_fd(self._wake.fileno())

    def let_files_be_removed(self) -> None:
        """From now on SIGTERM raises SystemExit, which removes the file that is being written.

        Not while modules load: native ones catch what interrupts them, and are loaded only once.
        """
        signal.signal(signal.SIGTERM, _exit_by_exception)

    def run(self) -> None:
        """See `threading.Thread.run`."""
        while True:
            woken, _, _ = select.select([self._woken], [], [], BEAT_SECONDS)
            if woken and signal.SIGTERM in self._woken.recv(64):
                _end()
            if has_lost_parent(self._driver):
                terminate_self()
                _end()
            try:
                self._report(time.process_time() - time.thread_time())
            except OSError as error:
                if not is_closed_pipe(error):
                    raise
                terminate_self()
                _end()


def _exit_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def _exit_by_exception(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _end() -> None:
    time.sleep(GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)


__all__ = ["BEAT_SECONDS", "GRACE_SECONDS", "Liveness"]

"""A signal to end ends a command as an interrupt does: workers stopped, written files kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mmcl_fast.operating_system.processes import TERMINATION_SIGNALS


class Terminated(SystemExit):
    """Raised where one of `TERMINATION_SIGNALS` arrives.

    Not caught, it ends the process with status 128 + number.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Raise `Terminated` on a signal that would end the process at once.

    Signals that are ignored (nohup) or have a handler of the caller's are left alone, and so are
    all of them outside of the main thread, where Python sets no handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in TERMINATION_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]

    def terminate(number: int, frame: FrameType | None) -> None:
        for each in ours:  # what is being stopped is not disturbed by another one
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    for number in ours:
        signal.signal(number, terminate)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


__all__ = ["Terminated", "orderly_termination"]

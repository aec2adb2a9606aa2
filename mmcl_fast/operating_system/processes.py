"""Processes: a child's channel to its parent, signals, and ends.

Imports the standard library alone, so that a worker can call it before it loads any other module.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import os
import signal
import subprocess
from importlib import import_module
from typing import Any

from mmcl_fast import operating_system

SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>

TERMINATION_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK")  # SIGBREAK: the console of Windows is closed
    if hasattr(signal, name)
)
"""What asks a process to end, beside an interrupt."""


def for_child(descriptor: int) -> tuple[int, dict[str, Any]]:
    """How a child in a process group of its own gets an open descriptor of this process.

    A terminal sends Ctrl-C to its own group only.

    Args:
        descriptor: It stays open here, and is the caller's to close.

    Returns: A number, which the child gives to `of_parent`, and arguments of `subprocess.Popen`.
    """
    if not operating_system.IS_WINDOWS:
        return descriptor, {"pass_fds": [descriptor], "process_group": 0}
    handle = import_module("msvcrt").get_osfhandle(descriptor)
    os.set_handle_inheritable(handle, True)  # type: ignore[attr-defined]  # noqa: FBT003
    # Of the inheritable handles only those listed are inherited.
    start = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})  # type: ignore[attr-defined]
    group = subprocess.CREATE_NEW_PROCESS_GROUP  # type: ignore[attr-defined]
    return handle, {"startupinfo": start, "creationflags": group}


def of_parent(number: int) -> int:
    """In the child: the descriptor, open for writing, that `for_child` gave a number."""
    if not operating_system.IS_WINDOWS:
        return number
    descriptor: int = import_module("msvcrt").open_osfhandle(number, os.O_WRONLY)
    return descriptor


def is_closed_pipe(error: OSError) -> bool:
    """Whether the reader of a pipe has gone; Windows says so by "invalid argument", too."""
    if isinstance(error, BrokenPipeError):
        return True
    # A name that no file may have is answered alike.
    return operating_system.IS_WINDOWS and error.errno == errno.EINVAL and error.filename is None


def has_lost_parent(parent: int) -> bool:
    """Whether the process that started this one has ended, as far as its number tells.

    Windows keeps the number of a parent that has ended, and a virtual environment's Python there is
    started by a launcher: a broken pipe alone tells it.
    """
    return not operating_system.IS_WINDOWS and os.getppid() != parent


def terminate_self() -> None:
    """Run the handler of SIGTERM in the main thread of this process."""
    if operating_system.IS_WINDOWS:
        _thread.interrupt_main(signal.SIGTERM)  # os.kill would end the process at once
    else:
        os.kill(os.getpid(), signal.SIGTERM)  # it also ends a system call that waits


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, even where no Python thread can run."""
    if operating_system.IS_LINUX:
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def kill_session(leader: int) -> None:
    """Kill a process that was started with `start_new_session`, and all that it has started."""
    if operating_system.IS_WINDOWS:  # there are no sessions, but a process knows who started it
        command = ["taskkill", "/T", "/F", "/PID", str(leader)]
        subprocess.run(command, capture_output=True, check=False)
    else:
        os.killpg(leader, signal.SIGKILL)


def fork() -> int | None:
    """Make a copy of this process: 0 there, its number here; None where a system has no copies."""
    return os.fork() if hasattr(os, "fork") else None


__all__ = [
    "TERMINATION_SIGNALS",
    "die_with_parent",
    "for_child",
    "fork",
    "has_lost_parent",
    "is_closed_pipe",
    "kill_session",
    "of_parent",
    "terminate_self",
]

"""The lock under which a store's plan is replaced: a file that exactly one process can create.

Exclusive creation works on local and shared file systems alike, with or without hard links or
kernel locks. The lock is held for milliseconds; one older than `STALE_SECONDS`, by the clock of the
file system, is of a process that was killed, and is removed.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmcl_fast.errors import OutputError
from mmcl_fast.files import file_system_time

LOCK = ".plan.lock"
STALE_SECONDS = 30.0
WAIT_SECONDS = 120.0
PAUSE_SECONDS = 0.02


@contextmanager
def plan_lock(store: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock of a store's plan.

    Yields: A function that raises OutputError if another process has removed the lock, as of a
        process that stood still for `STALE_SECONDS`; called right before the plan is replaced.
    Raises: OutputError: other processes held it for `WAIT_SECONDS`, or it cannot be created.
    """
    path, token = store / LOCK, secrets.token_hex(16)
    deadline = time.monotonic() + WAIT_SECONDS
    while not _create(path, token):
        _remove_stale(path)
        if time.monotonic() > deadline:
            raise OutputError(
                f"{LOCK}: expected no other process that replaces the plan, got one for "
                f"{WAIT_SECONDS:.0f} s in {store}; remove the file if there is none"
            )
        time.sleep(PAUSE_SECONDS)

    def held() -> None:
        if _token(path) != token:
            raise OutputError(
                f"{LOCK}: expected the lock of this process in {store}, got another's; run the "
                "command again"
            )

    try:
        yield held
    finally:
        if _token(path) == token:
            path.unlink(missing_ok=True)


def _create(path: Path, token: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(f"{LOCK}: cannot be written to {path.parent} ({error})") from error
    with os.fdopen(descriptor, "w") as stream:
        stream.write(token)
    return True


def _token(path: Path) -> str | None:
    """What a lock says; None if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _remove_stale(path: Path) -> None:
    """Remove the lock of a process that was killed."""
    with suppress(FileNotFoundError):
        seen = _token(path)
        if file_system_time(path.parent) - path.stat().st_mtime < STALE_SECONDS:
            return
        moved = path.with_name(f"{LOCK}.{secrets.token_hex(8)}.tmp")
        path.rename(moved)
        # Another process may have removed the stale one and created its own in between.
        if (found := _token(moved)) != seen and found:
            _create(path, found)
        moved.unlink()


__all__ = ["LOCK", "plan_lock"]

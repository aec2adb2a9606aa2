"""Opening files by descriptor, with the flags that a system has."""

from __future__ import annotations

import os
from pathlib import Path

# Windows has neither FIFOs to wait for nor O_NOFOLLOW (links need a privilege there), descriptors
# are not inherited, and without O_BINARY its C library would translate line ends.
_COMMON = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_for_reading(path: Path) -> int:
    """Descriptor of a file; a FIFO is not waited for."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _COMMON)


def open_for_writing(path: Path, *, append: bool) -> int:
    """Descriptor of a file that is made if need be; a link is refused, not followed.

    Args:
        path: The file.
        append: Write after what is there; False: in its place.
    """
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | _COMMON
    return os.open(path, flags | (os.O_APPEND if append else os.O_TRUNC), 0o666)


__all__ = ["open_for_reading", "open_for_writing"]

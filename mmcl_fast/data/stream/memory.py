"""Refusal of allocations that exceed the free memory, before the system kills the process."""

from __future__ import annotations

import warnings
from functools import cache

from mmcl_fast.operating_system.memory import free_bytes

SMALL_BYTES = 1 << 20


def available_bytes() -> int | None:
    """Memory that can be allocated without swapping, in bytes; None if unknown, with a warning."""
    known = free_bytes()
    if known is None:
        _warn_unchecked()
    return known


@cache  # once in a process
def _warn_unchecked() -> None:
    warnings.warn(
        "memory: this system does not tell how much is free; sizes are not checked against it",
        RuntimeWarning,
        stacklevel=2,
    )


def require_memory(needed: int, what: str) -> None:
    """Raise MemoryError, with the numbers, if `needed` bytes are more than is available."""
    if needed <= SMALL_BYTES:  # faster than asking the system
        return
    available = available_bytes()
    if available is not None and needed > available:
        msg = (
            f"{what}: needs {_gib(needed)}, available are {_gib(available)}; generate it in chunks"
        )
        raise MemoryError(msg)


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB ({size} bytes)"

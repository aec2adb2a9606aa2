"""Refusal of allocations that exceed the free memory, before the system kills the process."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
SMALL_BYTES = 1 << 20


def available_bytes() -> int | None:
    """Memory that can be allocated without swapping, in bytes; None if unknown."""
    known = [b for b in (_system_bytes(), _container_bytes()) if b is not None]
    return min(known, default=None)


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


def _system_bytes() -> int | None:
    if not MEMINFO.exists():
        return None
    for line in MEMINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _container_bytes() -> int | None:
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if not (limit.exists() and used.exists()) or limit.read_text().strip() == "max":
        return None
    # Cached file pages count as used, but give way to allocations.
    stat = CGROUP / "memory.stat"
    lines = stat.read_text().splitlines() if stat.exists() else []
    cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max(0, int(limit.read_text()) - int(used.read_text()) + cached)


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB ({size} bytes)"

"""Refusal of allocations that exceed the free memory, before the system kills the process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
UNLIMITED = 1 << 60  # version 1 of control groups has a number where there is no limit
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
    """What is left of the tightest limit of the control groups around this process."""
    left = [_left_bytes(folder, names) for folder, names in _groups(CGROUP, OWN_GROUPS)]
    return min((b for b in left if b is not None), default=None)


@dataclass(frozen=True)
class _Names:
    """Files of a control group's folder, in one of the two versions of their interface."""

    limit: str
    used: str
    cached: str


_VERSION_1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
_VERSION_2 = _Names("memory.max", "memory.current", "inactive_file ")


@cache
def _groups(mount: Path, own: Path) -> tuple[tuple[Path, _Names], ...]:
    """Folders of the control groups with a limit that hold this process.

    Looked for once in a process, as asking each time takes as long as training a small run. In a
    container the kernel may name a group that is mounted at the top; what is not there is left out.
    """
    found: dict[Path, _Names] = {mount: _VERSION_2, mount / "memory": _VERSION_1}
    lines = own.read_text().splitlines() if own.exists() else []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top, names = (mount / "memory", _VERSION_1) if controllers else (mount, _VERSION_2)
        inner = PurePosixPath(group.lstrip("/"))
        found |= {top / folder: names for folder in (inner, *inner.parents)}
    return tuple(
        (folder, names)
        for folder, names in found.items()
        if (folder / names.used).exists() and _limit(folder / names.limit) is not None
    )


def _limit(path: Path) -> int | None:
    text = path.read_text().strip() if path.exists() else "max"
    return None if text == "max" or int(text) >= UNLIMITED else int(text)


def _left_bytes(folder: Path, names: _Names) -> int | None:
    """Memory that a group may still allocate; None: its limit has been taken away."""
    limit = _limit(folder / names.limit)
    if limit is None:
        return None
    # Cached file pages count as used, but give way to allocations.
    stat = folder / "memory.stat"
    lines = stat.read_text().splitlines() if stat.exists() else []
    cached = sum(int(line.split()[1]) for line in lines if line.startswith(names.cached))
    return max(0, limit - int((folder / names.used).read_text()) + cached)


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB ({size} bytes)"

"""Memory: free ones, also of the control groups around this process, and what it has used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from mmcl_fast import operating_system

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
PEAK_RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
UNLIMITED = 1 << 60  # version 1 of control groups has a number where there is no limit


def free_bytes() -> int | None:
    """Memory that this process can allocate without swapping, in bytes; None if unknown."""
    known = [b for b in (_machine_bytes(), _container_bytes()) if b is not None]
    return min(known, default=None)


def _machine_bytes() -> int | None:
    if MEMINFO.exists():
        for line in MEMINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    if find_spec("psutil") is None:  # required off Linux
        return None
    return int(import_module("psutil").virtual_memory().available)


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
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
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
    text = path.read_text(encoding="utf-8").strip() if path.exists() else "max"
    return None if text == "max" or int(text) >= UNLIMITED else int(text)


def _left_bytes(folder: Path, names: _Names) -> int | None:
    """Memory that a group may still allocate; None: its limit has been taken away."""
    limit = _limit(folder / names.limit)
    if limit is None:
        return None
    # Cached file pages count as used, but give way to allocations.
    stat = folder / "memory.stat"
    lines = stat.read_text(encoding="utf-8").splitlines() if stat.exists() else []
    cached = sum(int(line.split()[1]) for line in lines if line.startswith(names.cached))
    return max(0, limit - int((folder / names.used).read_text(encoding="utf-8")) + cached)


def peak_resident_bytes() -> int:
    """Largest resident memory of this process so far."""
    if operating_system.IS_WINDOWS:
        return int(import_module("psutil").Process().memory_info().peak_wset)
    resource = import_module("resource")
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * 1024 if operating_system.IS_LINUX else peak  # macOS counts bytes


def forget_peak() -> bool:
    """Let the peak of `resident_bytes` start again; False: only Linux can."""
    if PEAK_RESET.exists():
        PEAK_RESET.write_text("5", encoding="ascii")
    return PEAK_RESET.exists()


def resident_bytes() -> tuple[int, int]:
    """Resident memory of this process now, and its peak since `forget_peak`; on Linux."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    now, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


__all__ = ["forget_peak", "free_bytes", "peak_resident_bytes", "resident_bytes"]

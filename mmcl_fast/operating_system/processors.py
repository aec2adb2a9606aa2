"""CPUs: which may be used, their name, and what tells two kinds apart."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

CPUINFO = Path("/proc/cpuinfo")
BRAND = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")  # macOS


def usable_cpus() -> int:
    """CPUs that this process may run on: all of the machine where the system binds none."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pin_to_one_cpu() -> None:
    """Confine this process to one of its CPUs; nothing is done where the system binds none."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def system_name() -> str:
    """System and architecture, as "Linux x86_64"."""
    return f"{platform.system()} {platform.machine()}"


def load_average() -> float | None:
    """Mean number of processes at work in the last minute; None: the system counts none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


@cache
def cpu_fields() -> Mapping[str, str]:
    """Fields of the first CPU in Linux's list; empty where the system has no such file."""
    return MappingProxyType(_blocks()[0])


def cpu_name() -> str:
    """Name of the CPU's model; of an ARM processor without one, maker and parts by number."""
    fields = cpu_fields()
    return fields.get("model name") or _arm_parts() or _brand() or "unknown"


def cpu_identity() -> str:
    """What tells two kinds of CPU apart, as far as the system knows; may be empty.

    Vendor, family and model of an x86-64 processor, maker and parts of an ARM one on Linux, the
    name elsewhere.
    """
    fields = cpu_fields()
    named = [fields.get(k, "") for k in ("vendor_id", "cpu family", "model")]
    return " ".join(filter(None, named)) or _arm_parts() or _brand()


def _arm_parts() -> str:
    """Numbers of the maker and of each kind of core; a machine may have several."""
    blocks = [b for b in _blocks() if "CPU implementer" in b and "CPU part" in b]
    cores = sorted({(b["CPU implementer"], b["CPU part"]) for b in blocks})
    return " + ".join(f"ARM implementer {maker} part {part}" for maker, part in cores)


@cache
def _brand() -> str:
    if not Path(BRAND[0]).exists():
        return platform.processor()  # Windows: family, model and stepping; elsewhere often empty
    done = subprocess.run(BRAND, capture_output=True, encoding="utf-8", check=False)
    return done.stdout.strip() or platform.processor()


@cache
def _blocks() -> list[dict[str, str]]:
    """Fields of each CPU in Linux's list; one without fields where there is no list."""
    text = CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else ""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.strip()]
    return [
        {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
        for lines in blocks or [[]]
    ]


__all__ = [
    "cpu_fields",
    "cpu_identity",
    "cpu_name",
    "load_average",
    "pin_to_one_cpu",
    "system_name",
    "usable_cpus",
]

"""What a measurement needs besides its number: machine, versions, commit; JSON lines."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CPUINFO = Path("/proc/cpuinfo")


def context(packages: Iterable[str]) -> dict[str, Any]:
    """Machine, versions, commit and whether the tree differs from it, date, command."""
    return {
        "cpu": _cpu_model(),
        "python": platform.python_version(),
        **{p: _version(p) for p in packages},
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "load_average": os.getloadavg()[0],  # above 1: other jobs took part
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", "bench.data", *sys.argv[1:]]),
    }


def append(path: Path, rows: Iterable[Mapping[str, Any]], common: Mapping[str, Any]) -> None:
    """One line per row, behind what is already there."""
    with path.open("a") as file:
        file.writelines(json.dumps({**row, **common}) + "\n" for row in rows)


def _cpu_model() -> str:
    if CPUINFO.exists():
        for line in CPUINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()

"""Results files: one JSON object per line, appended, with everything needed to judge a number."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmcl_fast.operating_system.processors import cpu_fields, cpu_name, load_average

from .peers.registry import PEERS

PACKAGES = ("torch", "jax", "numpy", "mmcl-fast")
ROOT = Path(__file__).resolve().parents[1]


def environment() -> dict[str, Any]:
    """Machine, versions, commit, date and command of this process."""
    load = load_average()
    versions = {p: version_of(p) for p in PACKAGES}
    versions |= {p.package: v for p in PEERS.values() if (v := p.version())}
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_1min": None if load is None else round(load, 2),
        "versions": {"python": platform.python_version()} | versions,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": _dirty(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(),
    }


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to the end of a results file; what is there already stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def cpu_model() -> str:
    """Name of the CPU; on Linux with family and model, since clouds hide the rest."""
    fields = cpu_fields()
    if "cpu family" not in fields:
        return cpu_name()
    wide = ", AVX-512" if "avx512f" in fields.get("flags", "") else ""
    return f"{cpu_name()} (family {fields['cpu family']}, model {fields['model']}{wide})"


def version_of(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _dirty() -> bool | None:
    # A results file that has just grown does not make the measured code another one.
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ":!bench/results")
    return None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    """Output of git in the checkout, or None where there is no git or no checkout."""
    if not (ROOT / ".git").exists():  # an installation inside somebody else's checkout
        return None
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def pathless(text: str) -> str:
    """A message free of the machine's paths: of each its last part."""
    return re.sub(r"(?<![\w.:/-])/(?:[^\s/\"'<>:]+/)+", "", text)


def _command() -> str:
    """The command line, free of the machine's paths."""
    return shlex.join(Path(a).name if Path(a).is_absolute() else a for a in sys.orig_argv)


__all__ = ["append", "cpu_model", "environment", "pathless", "version_of"]

"""What a result was made with: versions, machine, device. Goes into every result file."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcl_fast import __version__


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions of what computes, the processor and, if used, the GPU."""
    found: dict[str, Any] = {
        "mmcl_fast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
    return found


def triton_interpreted() -> bool:
    """Whether Triton runs its kernels on the CPU: it reads the flag when they are imported."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def kernels_lack(*, on_cuda: bool) -> str | None:
    """What the kernels lack to run on the CUDA device, or in the interpreter, or None."""
    if find_spec("triton") is None:  # looked for, not imported
        return "expected Triton to be installed, got none"
    if on_cuda and (torch.version.cuda is None or torch.cuda.get_device_capability() < (8, 0)):
        return "expected an NVIDIA GPU of compute capability 8.0 or later"
    return None


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


@cache
def source_commit() -> str | None:
    """Commit of the checkout that runs, with -dirty if files were changed; None in a wheel."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


__all__ = ["cpu_name", "environment", "source_commit", "triton_interpreted"]

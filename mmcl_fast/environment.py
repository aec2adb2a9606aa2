"""Provenance of a result: versions, machine and device, as recorded in every result file."""

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
from mmcl_fast.operating_system.processors import cpu_name, system_name


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions of the libraries, the CPU and, for device "cuda", the GPU."""
    fields: dict[str, Any] = {
        "mmcl_fast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": system_name(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device == "cuda":
        fields["gpu"] = torch.cuda.get_device_name()
        fields["cuda"] = torch.version.cuda
    return fields


def triton_interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU; it reads the flag when they are imported."""
    flag = os.environ.get("TRITON_INTERPRET")
    return flag is not None and flag.lower() in ("1", "true", "yes", "on", "y")


def kernels_lack(*, on_cuda: bool) -> str | None:
    """Requirement of the Triton kernels that is not met, or None.

    Args:
        on_cuda: They are to run on the CUDA device; False: in the interpreter.
    """
    if find_spec("triton") is None:  # without importing it
        return "expected Triton to be installed, got none"
    if on_cuda and (torch.version.cuda is None or torch.cuda.get_device_capability() < (8, 0)):
        return "expected an NVIDIA GPU of compute capability 8.0 or later"
    return None


@cache
def source_commit() -> str | None:
    """Commit of the running checkout, with -dirty if files were changed; None in a wheel."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None


__all__ = [
    "environment",
    "kernels_lack",
    "source_commit",
    "triton_interpreted",
]

"""Identity of the arithmetic of a run: rows of equal identity have equal bits."""

from __future__ import annotations

from functools import cache

import torch

from mmcl_fast import __version__
from mmcl_fast.config import TrainConfig
from mmcl_fast.operating_system.processors import cpu_identity

SAME_BITS_EVERYWHERE = ("native",)
"""Engines whose bits do not depend on the instruction set, the threads or the batch."""


def numerics_of(cfg: TrainConfig, *, measures: bool = False) -> str:
    """Everything but its settings that a run's bits depend on, on this machine.

    The native core gives the same bits on every x86-64; torch's matrix products are those of its
    version and of the processor or GPU. Empty parts are left out.

    Args:
        cfg: Settings of the run.
        measures: It has own metrics, which torch computes whatever the engine.
    """
    version = f"mmcl_fast {__version__}, {cfg.engine}"
    if cfg.engine in SAME_BITS_EVERYWHERE and not measures:
        return version
    if cfg.device == "cuda":
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        return f"{version}, torch {torch.__version__}, {gpu}"
    return f"{version}, torch {torch.__version__}, {processor()}"


@cache
def processor() -> str:
    """What tells the CPU from other kinds, and the instruction set that torch uses on it."""
    return f"{cpu_identity()} {torch.backends.cpu.get_cpu_capability()}".strip()


__all__ = ["SAME_BITS_EVERYWHERE", "numerics_of", "processor"]

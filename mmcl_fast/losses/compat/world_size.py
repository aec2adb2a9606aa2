"""What the modules do where several processes share a batch."""

from __future__ import annotations

from torch import distributed


def world_size() -> int:
    """Processes of the default group; 1 without one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def require_one_process(name: str, expected: str, *, processes: int) -> None:
    """For the calls that have no form over the batches of several processes.

    Raises:
        ValueError: There are several processes.
    """
    if processes > 1:
        raise ValueError(
            f"{name}: expected {expected}, got {processes} processes; "
            "mmcl_fast.distributed has the losses that span several"
        )


__all__ = ["require_one_process", "world_size"]

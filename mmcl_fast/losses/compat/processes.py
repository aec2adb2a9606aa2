"""What the modules do where several processes share a batch."""

from __future__ import annotations

from torch import distributed


def world_size() -> int:
    """Processes of the default group; 1 without one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def require_one_process(name: str, expected: str, *, processes: int) -> None:
    """The one place where the loss over the batches of several processes would begin.

    Raises:
        ValueError: There are several processes.
    """
    if processes > 1:
        raise ValueError(
            f"{name}: expected {expected}, got {processes} processes: no loss here spans several; "
            "gather their features, with gradients, and use a loss of one process"
        )


__all__ = ["require_one_process", "world_size"]

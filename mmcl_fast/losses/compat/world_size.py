"""What the modules do where several processes share a batch."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


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


def mean_over_ranks(terms: Tensor) -> Tensor:
    """The mean of the terms of all processes of the default group, the same on every rank.

    Its gradient here is the number of processes times that of the mean: what
    `DistributedDataParallel` averages over the ranks, as in `mmcl_fast.distributed`.

    Args:
        terms: [n] of this rank.

    Returns: A scalar.
    """
    total = torch.stack([terms.detach().sum(), terms.new_tensor(float(len(terms)))])
    distributed.all_reduce(total)
    own = terms.sum() * (world_size() / total[1])
    return own + (total[0] / total[1] - own).detach()


__all__ = ["mean_over_ranks", "require_one_process", "world_size"]

"""Tensors of runs side by side as one tensor, without a copy where they are neighbours already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def stacked(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Tensors of one shape as one on a device, [R, ...]; shares memory with them where it can."""
    first = tensors[0]
    if _are_neighbours(tensors):
        strides = first.numel(), *first.stride()
        return first.as_strided((len(tensors), *first.shape), strides).to(device)
    return torch.stack(list(tensors)).to(device)  # one copy to the device for all


def _are_neighbours(tensors: Sequence[Tensor]) -> bool:
    """Whether each begins where the one before it ends, as parts of one tensor do."""
    first = tensors[0]
    memory, begin, size = first.untyped_storage().data_ptr(), first.storage_offset(), first.numel()
    return all(
        x.is_contiguous()
        and x.untyped_storage().data_ptr() == memory
        and x.storage_offset() == begin + k * size
        for k, x in enumerate(tensors)
    )


def stretches(tensors: Sequence[Tensor]) -> Iterator[slice]:
    """Where runs next to each other are of one shape."""
    begin = 0
    for k in range(1, len(tensors) + 1):
        if k == len(tensors) or tensors[k].shape != tensors[begin].shape:
            yield slice(begin, k)
            begin = k


__all__ = ["stacked", "stretches"]

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


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on a device; a GPU is not waited for, as a plain copy to it would."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _are_neighbours(tensors: Sequence[Tensor]) -> bool:
    """Whether each begins where the one before it ends, as parts of one tensor do."""
    first = tensors[0]
    # The tensor that all are views of: to ask for its memory costs ten times as much.
    whole, begin, size = first._base, first.storage_offset(), first.numel()
    if whole is None and len(tensors) > 1:
        return False
    return all(
        x._base is whole and x.storage_offset() == begin + k * size and x.is_contiguous()
        for k, x in enumerate(tensors)
    )


def stretches(tensors: Sequence[Tensor]) -> Iterator[slice]:
    """Where runs next to each other are of one shape."""
    begin, shape = 0, tensors[0].shape
    for k, x in enumerate(tensors):
        if x.shape != shape:
            yield slice(begin, k)
            begin, shape = k, x.shape
    yield slice(begin, len(tensors))


__all__ = ["on_device", "stacked", "stretches"]

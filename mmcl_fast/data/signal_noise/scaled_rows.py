"""Rows of several runs times a factor of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def scaled(rows: Tensor, scales: Sequence[float], dtype: torch.dtype) -> Tensor:
    """Rows [R, samples, dims] times a factor of each run, in place, as `dtype`."""
    factors = on_device(torch.tensor(scales, dtype=rows.dtype), rows.device)
    return rows.mul_(factors[:, None, None]).to(dtype)


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on a device; the copy to a GPU is asynchronous, from pinned memory."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


__all__ = ["on_device", "scaled"]

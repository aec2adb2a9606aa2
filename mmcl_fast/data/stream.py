"""Standard normals and raw words of the project's one random stream."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmcl_fast.data import stream_numpy


def normal(
    seed: int,
    stream: str = "noise",
    shape: tuple[int, int, int] = (1, 1, 1),
    start: tuple[int, int, int] = (0, 0, 0),
    epoch: int = 0,
    scale: float = 1.0,
    dtype: str = "float32",
) -> Tensor:
    """Temporary."""
    z = stream_numpy.standard_normal(seed, stream, shape, start, epoch)
    if dtype == "float64":
        return torch.from_numpy(z.astype(np.float64) * scale)
    return torch.from_numpy(z * np.float32(scale))


def words(seed, stream, shape, start=(0, 0, 0), epoch=0):
    """Temporary."""
    return stream_numpy.words(seed, stream, shape, start, epoch)

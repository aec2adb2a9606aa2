"""Features of several dtypes, which are taken under autocast only."""

from __future__ import annotations

from typing import TypeVarTuple

import torch
from torch import Tensor

Features = TypeVarTuple("Features")


def in_one_dtype(*features: *Features) -> tuple[*Features]:
    """Tensors of several floating dtypes in the widest of them, where autocast is on.

    A frozen tower or a queue in float32 meets bfloat16 features there. Scores are float32 anyway,
    so this rounds nothing; gradients come back in each tensor's own dtype. Without autocast, and
    for anything that the loss's checks will refuse, the arguments are returned as they are.
    """
    tensors = [x for x in features if isinstance(x, Tensor)]
    dtypes = {x.dtype for x in tensors}
    if len(dtypes) < 2 or not all(dtype.is_floating_point for dtype in dtypes):
        return features
    if not torch.is_autocast_enabled(tensors[0].device.type):
        return features
    widest = tensors[0].dtype
    for dtype in dtypes:
        widest = torch.promote_types(widest, dtype)
    cast = (x.to(widest) if isinstance(x, Tensor) else x for x in features)
    return tuple(cast)  # type: ignore[return-value]


__all__ = ["in_one_dtype"]

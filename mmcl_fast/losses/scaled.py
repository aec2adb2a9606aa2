"""InfoNCE whose scores are multiplied by a scale, the inverse temperature.

Small batches take the scale as it is: its reciprocal and the derivative of that would be two more
operations of torch, which cost as much as a small product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Contrast
from mmcl_fast.losses.dispatch import run, scalar
from mmcl_fast.losses.mixed_precision import in_one_dtype
from mmcl_fast.losses.validation import check_not_traced, check_tensors


def scaled_info_nce(query: Tensor, key: Tensor, scale: float | Tensor, backend: str) -> Tensor:
    """`info_nce(query, key, temperature=1 / scale, symmetric=True)` of pairs and a valid scale.

    Args:
        query: [N, D].
        key: [N, D].
        scale: A number, or a 0-d tensor, > 0.
        backend: "auto" or a name.
    """
    check_not_traced()
    if torch._C._is_any_autocast_enabled():
        query, key = in_one_dtype(query, key)
    check_tensors(query, key, reduction="mean")
    contrast = Contrast(
        query=query, key=key, temperature=scalar(scale, query), symmetric=True, inverse=True
    )
    return run(contrast, "mean", backend)


__all__ = ["scaled_info_nce"]

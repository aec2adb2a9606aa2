"""Rows of features over their norms, as the losses of other libraries have them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def unit_rows(x: Tensor) -> Tensor:
    """The last axis of `x` over its Euclidean norm, in the dtype of `x`; a zero row stays zero.

    Computed in float32 (float64 for float64) and rounded once: a norm rounded to bfloat16 would
    scale its whole row by up to 0.2 %. A zero row of float16 or bfloat16 has gradient 0; of wider
    dtypes that of torch's `normalize`, 1e12 times the upstream gradient, which float16 cannot hold.
    """
    if x.dtype in (torch.float32, torch.float64):
        return normalize(x, dim=-1)
    wide = x.float()
    is_zero = (wide == 0).all(dim=-1, keepdim=True)
    return torch.where(is_zero, 0.0, normalize(wide, dim=-1)).to(x.dtype)


__all__ = ["unit_rows"]

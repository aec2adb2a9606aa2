"""The loss of a contrast: choice of the backend, scalars as tensors."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from mmcl_fast.losses.backends import name_for
from mmcl_fast.losses.contrast import Contrast, compute_dtype
from mmcl_fast.losses.evaluation import Reduction
from mmcl_fast.losses.transforms import contrast_loss


def run(contrast: Contrast, reduction: Reduction, backend: str) -> Tensor:
    """The loss of a contrast on a backend.

    Args:
        contrast: The problem; arguments are taken as valid.
        reduction: "mean" | "sum" | "none".
        backend: "auto", or a name, which never falls back.

    Returns: A scalar, or [N] if `reduction` is "none".
    """
    return contrast_loss(contrast, reduction, name_for(backend, contrast))


def scalar(x: float | Tensor, like: Tensor) -> Tensor:
    """A temperature or bias as a 0-d tensor, a scalar in the compute dtype of `like`."""
    if isinstance(x, Tensor):
        return x.reshape(()) if x.dim() else x
    dtype = compute_dtype(like)
    if like.is_cpu and may_keep_constants():
        return _constant(float(x), dtype)
    return torch.full((), float(x), dtype=dtype, device=like.device)


def may_keep_constants() -> bool:
    """Whether a tensor made now is an ordinary one: no compiler, transform or mode is active."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return not torch._C._len_torch_dispatch_stack()


@lru_cache(maxsize=64)
def _constant(x: float, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(mode=False):  # a tensor of inference mode can never be saved
        return torch.full((), x, dtype=dtype, device="cpu")


__all__ = ["may_keep_constants", "run", "scalar"]

"""The loss of a contrast: choice of the backend, scalars as tensors, reductions."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.losses.backends import Problem, choose
from mmcl_fast.losses.contrast import Contrast
from mmcl_fast.losses.custom_op import Reduction, contrast_loss


def run(contrast: Contrast, reduction: Reduction, backend: str) -> Tensor:
    """The loss of a contrast on a backend.

    Args:
        contrast: The problem; arguments are taken as valid.
        reduction: "mean" | "sum" | "none".
        backend: "auto", or a name, which never falls back.

    Returns: A scalar, or [N] if `reduction` is "none".
    """
    key = contrast.query if contrast.key is None else contrast.key
    problem = Problem(
        rows=len(contrast.query),
        columns=len(key),
        features=contrast.query.shape[1],
        dtype=contrast.query.dtype,
        device=contrast.query.device,
    )
    return contrast_loss(contrast, reduction, choose(backend, problem).name)


def scalar(x: float | Tensor, like: Tensor) -> Tensor:
    """A temperature or bias as a 0-d tensor, a scalar in the compute dtype of `like`."""
    if isinstance(x, Tensor):
        return x
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.full((), float(x), dtype=dtype, device=like.device)


def reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    """The mean or sum of row losses [N], or the losses."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


__all__ = ["reduced", "run", "scalar"]

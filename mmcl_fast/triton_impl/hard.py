"""Negatives of one query each: no pair of them is shared, so plain torch reads them once."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.contrast import Form
from mmcl_fast.kernels.pairs import FLOOR, LOG2
from mmcl_fast.triton_impl.sides import Statistics
from mmcl_fast.triton_impl.work import Work


def hard_statistics(work: Work, hard: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """(top, total) [n] over the hard negatives [N, K, D] of some rows, as a kernel's partial."""
    x = work.paired_scores(hard, rows)
    if work.pairs.sigmoid:
        total = torch.nn.functional.softplus(x * LOG2).sum(dim=1)
        return torch.full_like(total, FLOOR.value), total
    top = torch.cat([x, torch.full_like(x[:, :1], FLOOR.value)], dim=1).amax(dim=1)
    return top, torch.exp2(x - top[:, None]).sum(dim=1)


def hard_weights(work: Work, hard: Tensor, form: Form, statistics: Statistics) -> Tensor:
    """dL/ds of the hard negatives, [N, K], for losses of weight 1."""
    x = work.paired_scores(hard, slice(None))
    if form == "sigmoid":
        return torch.sigmoid(x * LOG2)
    return torch.exp2(x - statistics.top[:, None]) * statistics.scale()[:, None]


__all__ = ["hard_statistics", "hard_weights"]

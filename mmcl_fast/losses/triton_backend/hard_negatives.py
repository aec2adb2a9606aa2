"""Negatives of one query each: no pair of them is shared, so plain torch reads them once."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_common import FLOOR, LOG2
from mmcl_fast.kernels.contrast_row_losses import Terms
from mmcl_fast.losses.triton_backend.problem import Work


def hard_statistics(work: Work, hard: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """(top, total) [n] over the hard negatives [N, K, D] of some rows, as a kernel's partial."""
    x = work.paired_scores(hard, rows)
    if work.pairs.sigmoid:
        total = torch.nn.functional.softplus(x * LOG2).sum(dim=1)
        return torch.full_like(total, FLOOR.value), total
    top = torch.cat([x, x.new_full((len(x), 1), FLOOR.value)], dim=1).amax(dim=1)
    return top, torch.exp2(x - top[:, None]).sum(dim=1)


def hard_weights(work: Work, hard: Tensor, rows: Terms) -> Tensor:
    """dL/ds of the hard negatives, [N, K]."""
    x = work.paired_scores(hard, slice(None))
    sigmoid = work.pairs.sigmoid
    terms = torch.sigmoid(x * LOG2) if sigmoid else torch.exp2(x - rows.top[:, None])
    return terms.mul_(rows.scale[:, None])


__all__ = ["hard_statistics", "hard_weights"]

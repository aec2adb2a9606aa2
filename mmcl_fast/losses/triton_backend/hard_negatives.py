"""Hard negatives, each of one query: torch reads them once, so they need no kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_common import FLOOR, LOG2
from mmcl_fast.kernels.contrast_row_losses import RowTerms
from mmcl_fast.losses.contrast import Contrast
from mmcl_fast.losses.triton_backend.problem import KernelInputs


def hard_statistics(inputs: KernelInputs, contrast: Contrast, rows: slice) -> tuple[Tensor, Tensor]:
    """(max_score, exp_sum), [n] each, over the hard negatives of some rows."""
    x = _scores(inputs, contrast, rows)
    if inputs.pairs.sigmoid:
        exp_sum = torch.nn.functional.softplus(x * LOG2).sum(dim=1)
        return torch.full_like(exp_sum, FLOOR.value), exp_sum
    max_score = torch.cat([x, x.new_full((len(x), 1), FLOOR.value)], dim=1).amax(dim=1)
    return max_score, torch.exp2(x - max_score[:, None]).sum(dim=1)


def hard_weights(inputs: KernelInputs, contrast: Contrast, rows: RowTerms) -> Tensor:
    """dL/ds of the hard negatives, [N, K]; 0 of padding."""
    x = _scores(inputs, contrast, slice(None))
    sigmoid = inputs.pairs.sigmoid
    terms = torch.sigmoid(x * LOG2) if sigmoid else torch.exp2(x - rows.max_score[:, None])
    return terms.mul_(rows.scale[:, None])


def _scores(inputs: KernelInputs, contrast: Contrast, rows: slice) -> Tensor:
    """Scores of some rows with their hard negatives, [n, K]; -inf of padding."""
    assert contrast.hard is not None
    x = inputs.paired_scores(contrast.hard, rows)
    padding = contrast.hard_padding(rows)
    return x if padding is None else x.masked_fill_(padding, -torch.inf)


__all__ = ["hard_statistics", "hard_weights"]

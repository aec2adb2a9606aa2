"""Statistics of one direction's queries, merged from partial ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl_fast.contrast import Form
from mmcl_fast.row_statistics import RowStatistics


class Statistics(RowStatistics):
    """Statistics from what the programs of a kernel have found."""

    @classmethod
    def merged(cls, form: Form, positive: Tensor, top: Tensor, negatives: Tensor) -> Statistics:
        """From partial results [P, N] of `top` and `negatives`."""
        if form == "sigmoid":
            return cls(form, positive, torch.zeros_like(positive), negatives.sum(dim=0))
        highest = top.amax(dim=0)
        if form == "softmax":
            highest = torch.maximum(highest, positive)
        return cls(form, positive, highest, (negatives * torch.exp2(top - highest)).sum(dim=0))

    @classmethod
    def joined(cls, parts: Sequence[Statistics]) -> Statistics:
        """One after another."""
        columns = zip(*(part.saved() for part in parts), strict=True)
        return cls(parts[0].form, *(torch.cat(column) for column in columns))


__all__ = ["Statistics"]

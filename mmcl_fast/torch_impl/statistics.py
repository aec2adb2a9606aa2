"""Running softmax statistics of one direction."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.contrast import Form
from mmcl_fast.row_statistics import RowStatistics
from mmcl_fast.torch_impl.passes import masked


class Side(RowStatistics):
    """Statistics while they grow, over the blocks of scores."""

    @classmethod
    def start(cls, form: Form, positive: Tensor) -> Side:
        """Before any score has been seen."""
        # Above `masked`: a row that has met no negative yet must count none.
        top = torch.full_like(positive, masked(positive.dtype) / 2)
        return cls(form, positive, top, torch.zeros_like(positive))

    @classmethod
    def of(cls, form: Form, statistics: tuple[Tensor, ...]) -> Side:
        """From `saved()`."""
        return cls(form, *statistics)

    def merge(self, part: slice, top: Tensor, negatives: Tensor) -> Tensor:
        """Add sums taken relative to `top`, which is no lower than the own top was.

        Returns: By what sums relative to the old top had to be multiplied.
        """
        shrink = torch.exp2(self.top[part] - top)
        self.negatives[part] = self.negatives[part] * shrink + negatives
        self.top[part] = top
        return shrink

    def include_positive(self, part: slice = slice(None)) -> Tensor:
        """Raise tops to the positives; returns by what older sums had to be multiplied.

        For the softmax form: of all terms, the positive's among them, the largest is then 1.
        """
        if self.form != "softmax":
            return torch.ones_like(self.top[part])
        raised = torch.maximum(self.top[part], self.positive[part])
        return self.merge(part, raised, torch.zeros_like(raised))

    def rows(self, part: slice) -> Side:
        """Some of the queries."""
        return Side(self.form, self.positive[part], self.top[part], self.negatives[part])


__all__ = ["Side"]

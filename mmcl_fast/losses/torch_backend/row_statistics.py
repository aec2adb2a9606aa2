"""Softmax statistics of one direction's queries, and the losses and weights that they give."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Form
from mmcl_fast.losses.torch_backend.softmax_passes import LOG2, masked


@dataclass
class RowStatistics:
    """One entry for each query; scores in units of log 2.

    For the sigmoid form `top` is not used and `negatives` is the sum of log(1 + e^x) over them.

    Attributes:
        form: Of the row loss.
        positive: The positive's score.
        top: The largest score so far.
        negatives: Sum over negatives of 2^(score - top).
    """

    form: Form
    positive: Tensor
    top: Tensor
    negatives: Tensor

    @classmethod
    def start(cls, form: Form, positive: Tensor) -> RowStatistics:
        """Before any score has been seen."""
        # Above `masked`: a row that has met no negative yet must count none.
        top = torch.full_like(positive, masked(positive.dtype) / 2)
        return cls(form, positive, top, torch.zeros_like(positive))

    @classmethod
    def of(cls, form: Form, statistics: tuple[Tensor, ...]) -> RowStatistics:
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

    def rows(self, part: slice) -> RowStatistics:
        """Some of the queries."""
        return RowStatistics(self.form, self.positive[part], self.top[part], self.negatives[part])

    def saved(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a later pass needs."""
        return self.positive, self.top, self.negatives

    def losses(self) -> Tensor:
        """Row losses."""
        positive = self.positive * LOG2
        if self.form == "sigmoid":
            # Not softplus, which torch takes to be linear beyond 20.
            return self.negatives - torch.nn.functional.logsigmoid(positive)
        lead = (self.positive - self.top) * LOG2
        if self.form == "softmax":
            return torch.log1p(self.negatives + torch.expm1(lead)) - lead
        # Masked rather than divided: a row without negatives has loss 0.
        found = self.negatives != 0
        safe = torch.where(found, self.negatives, 1.0)
        return torch.where(found, torch.log(safe) - lead, 0.0)

    def scale(self) -> Tensor:
        """What 2^(score - top) is multiplied by to be -dL/ds of the positive's competitors."""
        if self.form == "softmax":
            return 1.0 / (self.negatives + torch.exp2(self.positive - self.top))
        if self.form == "sigmoid":
            return torch.ones_like(self.negatives)
        return torch.where(self.negatives != 0, 1.0 / self.negatives, 0.0)

    def pull(self) -> Tensor:
        """-dL/ds of the positive."""
        if self.form == "softmax":
            return self.negatives * self.scale()
        if self.form == "sigmoid":
            return torch.sigmoid(-self.positive * LOG2)
        # Not a constant: a NaN among the negatives must reach the gradient.
        return self.negatives * self.scale()


__all__ = ["RowStatistics"]

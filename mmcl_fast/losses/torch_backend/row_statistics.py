"""Softmax statistics of one direction's queries, their losses and weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Form
from mmcl_fast.losses.torch_backend.softmax_passes import LOG2, masked


@dataclass
class RowStatistics:
    """Running statistics over blocks of scores, [N] each; scores in units of log 2.

    For the sigmoid form `max_score` is unused and `exp_sum` is the sum of log(1 + e^x).

    Attributes:
        form: Of the row loss.
        positive_score: Of each query's positive.
        max_score: The largest score so far.
        exp_sum: Sum over negatives of 2^(score - max_score).
    """

    form: Form
    positive_score: Tensor
    max_score: Tensor
    exp_sum: Tensor

    @classmethod
    def start(cls, form: Form, positive_score: Tensor) -> RowStatistics:
        """Statistics of no scores."""
        # Above `masked`: masked scores must add 0 to rows without negatives so far.
        max_score = torch.full_like(positive_score, masked(positive_score.dtype) / 2)
        return cls(form, positive_score, max_score, torch.zeros_like(positive_score))

    @classmethod
    def of(cls, form: Form, statistics: tuple[Tensor, ...]) -> RowStatistics:
        """From `saved()`."""
        return cls(form, *statistics)

    def merge(self, part: slice, max_score: Tensor, exp_sum: Tensor) -> Tensor:
        """Add sums relative to `max_score`, which is at least the present maximum.

        Returns: The factor of sums relative to the previous maximum.
        """
        rescale = torch.exp2(self.max_score[part] - max_score)
        self.exp_sum[part] = self.exp_sum[part] * rescale + exp_sum
        self.max_score[part] = max_score
        return rescale

    def include_positive(self, part: slice = slice(None)) -> Tensor:
        """Raise maxima to the positives' scores (softmax form); returns the factor of earlier sums.

        The largest term, that of the positive included, is then 1.
        """
        if self.form != "softmax":
            return torch.ones_like(self.max_score[part])
        new_max = torch.maximum(self.max_score[part], self.positive_score[part])
        return self.merge(part, new_max, torch.zeros_like(new_max))

    def rows(self, part: slice) -> RowStatistics:
        """Some of the queries."""
        return RowStatistics(
            self.form, self.positive_score[part], self.max_score[part], self.exp_sum[part]
        )

    def saved(self) -> tuple[Tensor, Tensor, Tensor]:
        """The statistics for a later pass, see `of`."""
        return self.positive_score, self.max_score, self.exp_sum

    def losses(self) -> Tensor:
        """Row losses."""
        positive = self.positive_score * LOG2
        if self.form == "sigmoid":
            # Not softplus: torch makes it linear beyond 20.
            return self.exp_sum - torch.nn.functional.logsigmoid(positive)
        gap = (self.positive_score - self.max_score) * LOG2
        if self.form == "softmax":
            return torch.log1p(self.exp_sum + torch.expm1(gap)) - gap
        # A row without negatives has loss 0.
        has_negatives = self.exp_sum != 0
        safe = torch.where(has_negatives, self.exp_sum, 1.0)
        return torch.where(has_negatives, torch.log(safe) - gap, 0.0)

    def scale(self) -> Tensor:
        """The factor of 2^(score - max_score) in dL/ds of a negative."""
        if self.form == "softmax":
            return 1.0 / (self.exp_sum + torch.exp2(self.positive_score - self.max_score))
        if self.form == "sigmoid":
            return torch.ones_like(self.exp_sum)
        return torch.where(self.exp_sum != 0, 1.0 / self.exp_sum, 0.0)

    def positive_weight(self) -> Tensor:
        """-dL/ds of the positive."""
        if self.form == "softmax":
            return self.exp_sum * self.scale()
        if self.form == "sigmoid":
            return torch.sigmoid(-self.positive_score * LOG2)
        # Not the constant 1: a NaN among the negatives must reach the gradient.
        return self.exp_sum * self.scale()


__all__ = ["RowStatistics"]

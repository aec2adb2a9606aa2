"""Statistics of one direction's queries, merged from partial ones, and what they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.contrast import Form
from mmcl_fast.kernels.pairs import LOG2


@dataclass(frozen=True)
class Statistics:
    """One entry for each query of a direction; scores in units of log 2.

    Attributes:
        form: Of the row loss.
        positive: The positive's score.
        top: The largest score among negatives and, in the softmax form, the positive.
        negatives: Sum over negatives of 2^(score - top); sigmoid form: of log(1 + e^s).
    """

    form: Form
    positive: Tensor
    top: Tensor
    negatives: Tensor

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

    def losses(self) -> Tensor:
        """Row losses."""
        if self.form == "sigmoid":
            own: Tensor = torch.nn.functional.softplus(-self.positive * LOG2)
            return self.negatives + own
        lead: Tensor = (self.positive - self.top) * LOG2
        if self.form == "softmax":
            return torch.log1p(self.negatives + torch.expm1(lead)) - lead
        # A row without negatives has loss 0; its logarithm must not be taken.
        found = self.negatives != 0
        safe = torch.where(found, self.negatives, 1.0)
        return torch.where(found, torch.log(safe) - lead, 0.0)

    def scale(self) -> Tensor:
        """What 2^(score - top) is multiplied by to be dL/ds of a negative; within 0..1."""
        if self.form == "softmax":
            return 1.0 / (self.negatives + torch.exp2(self.positive - self.top))
        if self.form == "sigmoid":
            return torch.ones_like(self.negatives)
        return torch.where(self.negatives != 0, 1.0 / self.negatives, 0.0)

    def pull(self) -> Tensor:
        """-dL/ds of the positive."""
        if self.form == "sigmoid":
            return torch.sigmoid(-self.positive * LOG2)
        # In the decoupled form 1 or 0, or NaN where a negative is.
        return self.negatives * self.scale()

    def saved(self) -> tuple[Tensor, Tensor, Tensor]:
        """Its tensors."""
        return self.positive, self.top, self.negatives


__all__ = ["Statistics"]

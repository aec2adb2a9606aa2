"""One contrastive problem: what a loss hands to an implementation, and what it gets back.

Every loss of `mmcl_fast.losses` is one of three forms of the row loss, over the scores
s_ij = <q_i, k_j> / temperature and the negatives N(i):

    softmax    loss_i = log(e^{s_i+} + sum_{N(i)} e^{s_ij}) - s_i+
    decoupled  loss_i = log(sum_{N(i)} e^{s_ij}) - s_i+
    sigmoid    loss_i = log(1 + e^{-(s_i+ + bias)}) + sum_{N(i)} log(1 + e^{s_ij + bias})
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Form = Literal["softmax", "decoupled", "sigmoid"]


@dataclass(frozen=True)
class Contrast:
    """N queries with their positives and negatives; arguments are taken as valid.

    The negatives N(i) are all rows of `key` but the positive's, if that is a row of `key`; row i,
    if `exclude_self`; and rows of the same label, if there are labels. The last `extra` rows are
    negatives whatever their index and label. `hard` adds rows to one query each.

    Attributes:
        query: [N, D], any strides.
        key: [M, D], same dtype and device. None: the query itself (M = N), whose two places then
            share one gradient; only with `stopped`, or with `exclude_self` and without labels.
        temperature: 0-d, floating.
        bias: 0-d, floating; "sigmoid" alone has it.
        positive: [N], int64: the row of `key` that is the positive; with `key` None its own
            inverse. None: row i, unless `positive_key` is given.
        positive_key: [N, D] or None: the positives' features, which are then no rows of `key`.
        hard: [N, K, D] or None: further negatives of each query.
        labels: Of the queries [N] and of the keys [M - extra], or None.
        form: Of the row loss.
        symmetric: The loss is half the sum of both directions; M = N, row i is the positive of i.
        stopped: Gradients flow to whichever tensor plays the query in a direction, and no other.
        exclude_self: Row i is no negative of query i.
        extra: How many of the last keys are everyone's negatives.
    """

    query: Tensor
    key: Tensor | None
    temperature: Tensor
    bias: Tensor | None = None
    positive: Tensor | None = None
    positive_key: Tensor | None = None
    hard: Tensor | None = None
    labels: tuple[Tensor, Tensor] | None = None
    form: Form = "softmax"
    symmetric: bool = False
    stopped: bool = False
    exclude_self: bool = False
    extra: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """What scores, sums and gradients are computed in."""
        return torch.float64 if self.query.dtype == torch.float64 else torch.float32


class Wanted(NamedTuple):
    """The inputs whose gradient is wanted."""

    query: bool = False
    key: bool = False
    positive_key: bool = False
    hard: bool = False
    temperature: bool = False
    bias: bool = False


class Gradients(NamedTuple):
    """In `Contrast.dtype`; None where not wanted.

    Those of temperature and bias are kept per row, so that rows can be weighted later.
    """

    query: Tensor | None = None  # [N, D]
    key: Tensor | None = None  # [M, D]
    positive_key: Tensor | None = None  # [N, D]
    hard: Tensor | None = None  # [N, K, D]
    temperature: Tensor | None = None  # [N]
    bias: Tensor | None = None  # [N]


class Forward(NamedTuple):
    """What a forward pass leaves: `gradients`, or the `statistics` to find them with later."""

    losses: Tensor  # [N], the mean of both directions if symmetric
    gradients: Gradients | None
    statistics: tuple[Tensor, ...]


__all__ = ["Contrast", "Form", "Forward", "Gradients", "Wanted"]

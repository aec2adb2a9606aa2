"""One contrastive problem, and the results of its implementations.

Every loss of `mmcl_fast.losses` is one of three forms of the row loss, over the scores
s_ij = <q_i, k_j> / temperature and the negatives N(i):

    softmax    loss_i = log(e^{s_i+} + sum_{N(i)} e^{s_ij}) - s_i+
    decoupled  loss_i = log(sum_{N(i)} e^{s_ij}) - s_i+
    sigmoid    loss_i = log(1 + e^{-(s_i+ + bias)}) + sum_{N(i)} log(1 + e^{s_ij + bias})
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmcl_fast.losses.pairwise import Pairwise
from mmcl_fast.losses.unit_rows import unit_rows

Form = Literal["softmax", "decoupled", "sigmoid"]


@dataclass(slots=True, eq=False)  # frozen takes three times as long to make
class Contrast:
    """N queries with their positives and negatives; arguments are taken as valid.

    The negatives N(i) are all rows of `key` but the positive's, if that is a row of `key`; row i,
    if `exclude_self`; and rows of the same label, if there are labels. The last `extra` rows are
    negatives of every query. `hard` has further negatives of single queries.

    Attributes:
        query: [N, D], any strides.
        key: [M, D], same dtype and device. None: the query itself (M = N), with one gradient for
            both arguments; only with `stopped`, or with `exclude_self` and without labels.
        temperature: 0-d, floating.
        bias: 0-d, floating; "sigmoid" only.
        positive: [N], int64: the row of `key` that is the positive; with `key` None its own
            inverse. None: row i, unless `positive_key` is given.
        positive_key: [N, D] or None: the positives' features, which are then no rows of `key`.
        hard: [N, K, D] or None: further negatives of each query.
        hard_counts: [N], int64, or None: query i has its first hard_counts[i] negatives of `hard`,
            and the other rows are padding, zeros. None: it has all K.
        labels: Of the queries [N] and of the keys [M - extra], or None.
        form: Of the row loss.
        symmetric: The loss is half the sum of both directions; M = N, row i is the positive of i.
        stopped: In each direction only the tensor that is the query has a gradient.
        exclude_self: Row i is no negative of query i.
        extra: Number of keys, the last ones, that are negatives of every query.
        supervised: Every key of the query's label is a positive, and s_i+ the mean of their scores:
            `labels` tells positives, and every key is a negative. Or the targets of `pairwise` are
            the positives, without `labels`, and a row's loss counts as often as their shares say.
            "decoupled" only, one direction; a query without a positive has loss 0.
        smoothing: In 0 .. 1: this share of the target is spread over the positive and the
            negatives. "softmax" only.
        second: [B, D] or None: the queries are the rows of `query`, then these; `key` is None.
        inverse: `temperature` holds its inverse, a scale.
        normalised: The queries are divided by their norms; with `second` only.
        pairwise: Targets over several keys, and pairs that take no part; the positive always does.
            With exclusions `key` is given.
    """

    query: Tensor
    key: Tensor | None
    temperature: Tensor
    bias: Tensor | None = None
    positive: Tensor | None = None
    positive_key: Tensor | None = None
    hard: Tensor | None = None
    hard_counts: Tensor | None = None
    labels: tuple[Tensor, Tensor] | None = None
    form: Form = "softmax"
    symmetric: bool = False
    stopped: bool = False
    exclude_self: bool = False
    extra: int = 0
    supervised: bool = False
    smoothing: float = 0.0
    pairwise: Pairwise | None = None
    second: Tensor | None = None
    inverse: bool = False
    normalised: bool = False

    @property
    def rows(self) -> int:
        """The number of queries, N."""
        second = 0 if self.second is None else self.second.shape[0]
        return self.query.shape[0] + second

    @property
    def is_plain(self) -> bool:
        """Whether all queries are in one tensor as they are, and the temperature is one."""
        return self.second is None and not self.inverse

    def plain(self) -> Contrast:
        """The same with all queries in one tensor, and a temperature; autograd records this."""
        if self.is_plain:
            return self
        query, temperature = self.query, self.temperature
        if self.second is not None:
            query = torch.cat([query, self.second])
        if self.normalised:
            query = unit_rows(query)
        if self.inverse:
            temperature = temperature.reciprocal()
        return replace(
            self, query=query, temperature=temperature, second=None, inverse=False, normalised=False
        )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of scores, sums and gradients."""
        return compute_dtype(self.query)

    def hard_padding(self, rows: slice = slice(None)) -> Tensor | None:
        """Which hard negatives of some rows are padding, [n, K]; None: there is no padding."""
        if self.hard is None or self.hard_counts is None:
            return None
        return padding_after(self.hard_counts[rows], self.hard.shape[1])


class Requested(NamedTuple):
    """Inputs whose gradient is needed."""

    query: bool = False
    key: bool = False
    positive_key: bool = False
    hard: bool = False
    temperature: bool = False
    bias: bool = False


class Gradients(NamedTuple):
    """Gradients of the inputs, in `Contrast.dtype`; None where not requested.

    Those of temperature and bias are one value per row, so that rows can be weighted later.
    """

    query: Tensor | None = None  # [N, D]
    key: Tensor | None = None  # [M, D]
    positive_key: Tensor | None = None  # [N, D]
    hard: Tensor | None = None  # [N, K, D]
    temperature: Tensor | None = None  # [N]
    bias: Tensor | None = None  # [N]

    def plus(self, other: Gradients) -> Gradients:
        """The sum with those of another function of the same inputs; None counts as 0.

        These tensors are overwritten, as each may be as large as the features.
        """
        pairs = zip(self, other, strict=True)
        return Gradients(*(y if x is None else x if y is None else x.add_(y) for x, y in pairs))


def compute_dtype(features: Tensor) -> torch.dtype:
    """The dtype of scores, sums and gradients of features: float32, or float64 for float64."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def padding_after(counts: Tensor, width: int) -> Tensor:
    """Which of `width` places are beyond each of the counts [N], [N, width]."""
    return torch.arange(width, device=counts.device) >= counts[:, None]


class Forward(NamedTuple):
    """Results of a forward pass: losses, and `gradients` or the `statistics` for them."""

    losses: Tensor  # [N], the mean of both directions if symmetric
    gradients: Gradients | None
    statistics: tuple[Tensor, ...]


__all__ = [
    "Contrast",
    "Form",
    "Forward",
    "Gradients",
    "Requested",
    "compute_dtype",
    "padding_after",
]

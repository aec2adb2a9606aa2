"""One direction of the paper's losses with its whole gradient in one pass over the scores.

For queries H, keys K and positives P, all 2 m-dimensional (a signal patch and a noise patch),

    loss_i = -log( e^{s_ii} / (e^{s_ii} + sum_{j in N(i)} e^{s_ij}) ),   s_ij = <H_i, K_j> / (m tau)
    dL/dH_i = ( -(1 - p_ii) P_i + sum_{j in N(i)} p_ij K_j ) / (n m tau)

by equation (8), because the similarity stops the gradient at its second argument (4). R independent
runs are done side by side. The signal patch is never an n-row array: its features depend on the
label only. Samples lie along the contiguous axis, which is the faster order for these products.

Numerics: everything in the inputs' dtype; any temperature is safe; a loss near 0 keeps its relative
accuracy. Deterministic, and a run's result does not depend on the other runs of the batch: products
and sums do not, and of torch's exponentials softmax alone treats a row's tail as it treats its body
(elementwise exp and exp2 use other code for the last few elements of a tensor).
Cost per run: 4 n^2 m flop; memory O(rows_per_chunk(n) n).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

CHUNK_SCORES = 1 << 22  # scores held at once for one run; a constant, so results never vary


class Workspace:
    """Memory that is used again in every epoch, by name and shape."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uninitialised memory of a shape, with the dtype and device of `like`."""
        key = (name, shape)
        if key not in self._held:
            self._held[key] = like.new_empty(shape)
        return self._held[key]


class Features:
    """Activations of one modality or view; may be kept while `both` is filled anew.

    Attributes:
        both: act(<w_r, xi_i>) for the n samples, then act(<w_r, mu>) and act(-<w_r, mu>), the
            signal features of labels +1 and -1, [R, m, n + 2]. Rows after the first `neurons` and
            noise columns after the samples may be padding, which is 0.
        neurons: m, without padding.
        noise: The first n columns, [R, m, n].
        signal: The last two, [R, m, 2].
    """

    def __init__(self, both: Tensor, neurons: int | None = None) -> None:
        self.both = both
        self.neurons = both.shape[1] if neurons is None else neurons
        self.noise = both[:, :, :-2]
        self.signal = both[:, :, -2:]


@dataclass(frozen=True)
class FeatureGradient:
    """Gradient of the mean loss with respect to query features: `weight` times these.

    Attributes:
        signal: Summed over the samples of each label, [R, m, 2].
        noise: [R, m, n].
        weight: 1 / (n m tau).
    """

    signal: Tensor
    noise: Tensor
    weight: float


@dataclass(frozen=True)
class Roles:
    """Who plays what in a direction of the loss.

    Attributes:
        query: Features that get the gradient.
        key: Features of the negatives.
        positive: Features of the positives: of the augmented view, or `key` itself.
    """

    query: Features
    key: Features
    positive: Features


class Labels:
    """Labels of the samples of R runs, in the two forms that the loss reads.

    Args:
        labels: +1 or -1, [R, n]; 0 for a row that is padding and no sample.

    Attributes:
        positive: Whether a label is +1, [R, n].
        one_hot: Row 0 for +1, row 1 for -1, neither for 0, [R, 2, n].
    """

    def __init__(self, labels: Tensor) -> None:
        self.positive = labels > 0
        self.one_hot = torch.stack([self.positive, labels < 0], dim=1).to(labels.dtype)


class Negatives(Protocol):
    """N(i) as an additive bias: 0 on the diagonal and for j in N(i), -inf elsewhere."""

    def rows(self, start: int, stop: int) -> Tensor:
        """Bias of query rows start .. stop, [R, stop - start, n]."""
        ...


class ListedNegatives:
    """A bias held whole, [R, n, n]."""

    def __init__(self, bias: Tensor) -> None:
        self._bias = bias

    def rows(self, start: int, stop: int) -> Tensor:
        """See `Negatives.rows`."""
        return self._bias[:, start:stop]


class OtherLabel:
    """All samples of the other label; the bias of a chunk is made when it is needed."""

    def __init__(self, labels: Tensor) -> None:
        self._labels = labels

    def rows(self, start: int, stop: int) -> Tensor:
        """See `Negatives.rows`."""
        return bias_of(
            self._labels[:, start:stop, None] != self._labels[:, None, :], start, self._labels.dtype
        )


def bias_of(chosen: Tensor, start: int, dtype: torch.dtype) -> Tensor:
    """Bias of the rows `start ...` of a bool mask of negatives, [R, rows, n]."""
    bias = torch.zeros(chosen.shape, dtype=dtype, device=chosen.device)
    bias.masked_fill_(~chosen, -torch.inf)
    bias.diagonal(start, dim1=1, dim2=2).zero_()
    return bias


def one_pass(
    roles: Roles,
    labels: Labels,
    negatives: Negatives,
    *,
    tau: float,
    workspace: Workspace,
    want_gradient: bool = True,
    padding: int = 0,
) -> tuple[Tensor, FeatureGradient | None]:
    """Loss of one direction and its gradient with respect to the query's features.

    Args:
        roles: Query, key and positive.
        labels: Of the n rows.
        negatives: N(i).
        tau: Temperature.
        workspace: Memory for the scores, used again in the next call.
        want_gradient: False computes the loss alone.
        padding: Of the n rows, the last that are no samples: features and labels 0, no negatives
            and nobody's negative. They have no part in the loss and a gradient of 0.

    Returns: The mean loss of each run, [R], and the gradient.
    """
    runs, n = labels.positive.shape
    query, key, positive = roles.query, roles.key, roles.positive
    scale = 1.0 / (query.neurons * tau)
    matched = _matched_scores(roles, labels, scale)
    pull = query.noise.new_empty(query.noise.shape)
    losses, missing = [], []
    for rows in _chunks(n):
        shape = (runs, rows.stop - rows.start, n)
        scores = workspace.empty("scores", shape, matched)
        bias, keys = negatives.rows(rows.start, rows.stop), key.noise
        torch.baddbmm(bias, query.noise[:, :, rows].mT, keys, alpha=scale, out=scores)
        own = matched[:, rows]
        scores.diagonal(rows.start, dim1=1, dim2=2).copy_(own)
        weights = torch.softmax(scores, 2, out=workspace.empty("weights", shape, matched))
        top, likeliest = scores.amax(2), weights.amax(2)
        diagonal = weights.diagonal(rows.start, dim1=1, dim2=2)
        hit = diagonal.clone()
        diagonal.zero_()
        miss = weights.sum(2)  # 1 - p_ii without cancellation
        losses.append(_minus_log(hit, miss, top - own, likeliest))
        missing.append(miss)
        if want_gradient and rows.stop - rows.start == n:
            torch.bmm(keys, weights.mT, out=pull)
        elif want_gradient:
            pull[:, :, rows] = torch.bmm(keys, weights.mT)
    samples = n - padding
    loss = _join(losses)[:, :samples].mean(1)
    if not want_gradient:
        return loss, None
    miss = _join(missing)
    pull.addcmul_(positive.noise, miss.unsqueeze(1), value=-1)
    # No matrix product: a lone row goes to another routine, which rounds by where operands begin.
    shares = workspace.empty("shares", (runs, 2, n), miss)
    torch.mul(miss.unsqueeze(1), labels.one_hot, out=shares)
    by_label = shares.sum(2).unsqueeze(1)  # [R, 1, 2]
    signal = (key.signal.flip(2) - positive.signal).mul_(by_label)
    return loss, FeatureGradient(signal, pull, weight=scale / samples)


def _matched_scores(roles: Roles, labels: Labels, scale: float) -> Tensor:
    """Scores of the positives, less the signal's part in the scores of the row's negatives, [R, n].

    That part depends on the query's label alone, so it is taken from the one positive instead of
    being added to all negatives; the softmax does not change.
    """
    query, key = roles.query, roles.key
    along = (query.both * roles.positive.both).sum(1)  # [R, n + 2]
    ours = along[:, -2:]
    # With itself as key that part is the sum of relu(a)^q relu(-a)^q, which is 0 exactly.
    if query is not key:
        ours = ours - (query.signal * key.signal.flip(2)).sum(1)
    own = torch.where(labels.positive, ours[:, :1], ours[:, 1:])
    return own.add_(along[:, :-2]).mul_(scale)


def _minus_log(hit: Tensor, miss: Tensor, gap: Tensor, likeliest: Tensor) -> Tensor:
    """`-log p_ii` from p_ii, 1 - p_ii, the largest score less the positive's, and its weight.

    `log(1 + (1 - p_ii) / p_ii)` is accurate down to losses near 0; where p_ii underflows, the loss
    is the gap in scores less the logarithm of the largest weight.
    """
    near = torch.log1p(miss / hit)
    return torch.where(hit < torch.finfo(hit.dtype).tiny, gap - torch.log(likeliest), near)


def _chunks(n: int) -> Iterator[slice]:
    rows = max(1, min(n, CHUNK_SCORES // n))
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


__all__ = [
    "FeatureGradient",
    "Features",
    "Labels",
    "ListedNegatives",
    "Negatives",
    "OtherLabel",
    "Roles",
    "Workspace",
    "bias_of",
    "one_pass",
]

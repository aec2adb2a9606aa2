"""One direction of the paper's losses and its gradient in one pass over the scores.

For queries H, keys K and positives P, all 2 m-dimensional (a signal patch and a noise patch),

    loss_i = -log( e^{s_ii} / (e^{s_ii} + sum_{j in N(i)} e^{s_ij}) ),   s_ij = <H_i, K_j> / (m tau)
    dL/dH_i = ( -(1 - p_ii) P_i + sum_{j in N(i)} p_ij K_j ) / (n m tau)

by equation (8), because the similarity stops the gradient at its second argument (4). R independent
runs are one batch. The signal patch is never an n-row array: its features depend on the
label only. Samples are the contiguous axis, which is the faster order for these products.

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

CHUNK_SCORES = 1 << 22  # of one run at a time; a constant, so results depend on n alone


class Workspace:
    """Tensors reused in every epoch, by name and shape."""

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uninitialised memory of a shape, with the dtype and device of `like`."""
        key = (name, shape)
        if key not in self._tensors:
            self._tensors[key] = like.new_empty(shape)
        return self._tensors[key]


class Features:
    """Activations of one modality or view; `both` may be overwritten in place.

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
    """Gradient of the mean loss with respect to query features, divided by `weight`.

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
    """Query, key and positive features of one direction of the loss.

    Attributes:
        query: Features that receive the gradient.
        key: Features of the negatives.
        positive: Features of the positives: of the augmented view, or `key` itself.
    """

    query: Features
    key: Features
    positive: Features


class Labels:
    """Labels of the samples of R runs, as a mask and one-hot.

    Args:
        labels: +1 or -1, [R, n]; 0 for a padding row.

    Attributes:
        positive: Whether a label is +1, [R, n].
        one_hot: Row 0 is 1 for +1, row 1 for -1, neither for 0, [R, 2, n].
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
    """A stored bias, [R, n, n]."""

    def __init__(self, bias: Tensor) -> None:
        self._bias = bias

    def rows(self, start: int, stop: int) -> Tensor:
        """See `Negatives.rows`."""
        return self._bias[:, start:stop]


class OtherLabel:
    """All samples of the other label; the bias of each chunk is computed on request."""

    def __init__(self, labels: Tensor) -> None:
        self._labels = labels

    def rows(self, start: int, stop: int) -> Tensor:
        """See `Negatives.rows`."""
        return bias_of(
            self._labels[:, start:stop, None] != self._labels[:, None, :], start, self._labels.dtype
        )


def bias_of(mask: Tensor, start: int, dtype: torch.dtype) -> Tensor:
    """Bias [R, rows, n] of the query rows from `start` on, from their bool mask of negatives."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    bias.masked_fill_(~mask, -torch.inf)
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
    """Loss of one direction and its gradient with respect to the query features.

    Args:
        roles: Query, key and positive.
        labels: Of the n rows.
        negatives: N(i).
        tau: Temperature.
        workspace: Tensors reused by the next call.
        want_gradient: False computes the loss alone.
        padding: Number of trailing rows that are padding: features and labels 0, negatives of no
            sample. They do not enter the loss, and their gradient is 0.

    Returns: The mean loss of each run, [R], and the gradient.
    """
    runs, n = labels.positive.shape
    query, key, positive = roles.query, roles.key, roles.positive
    scale = 1.0 / (query.neurons * tau)
    positive_scores = _positive_scores(roles, labels, scale)
    noise_gradient = query.noise.new_empty(query.noise.shape)
    losses, one_minus_p_parts = [], []
    for rows in _chunks(n):
        shape = (runs, rows.stop - rows.start, n)
        scores = workspace.empty("scores", shape, positive_scores)
        bias, keys = negatives.rows(rows.start, rows.stop), key.noise
        torch.baddbmm(bias, query.noise[:, :, rows].mT, keys, alpha=scale, out=scores)
        chunk_positive = positive_scores[:, rows]
        scores.diagonal(rows.start, dim1=1, dim2=2).copy_(chunk_positive)
        weights = torch.softmax(scores, 2, out=workspace.empty("weights", shape, positive_scores))
        row_max, largest_weight = scores.amax(2), weights.amax(2)
        diagonal = weights.diagonal(rows.start, dim1=1, dim2=2)
        p_positive = diagonal.clone()
        diagonal.zero_()
        one_minus_p = weights.sum(2)  # 1 - p_ii without cancellation
        losses.append(minus_log(p_positive, one_minus_p, row_max - chunk_positive, largest_weight))
        one_minus_p_parts.append(one_minus_p)
        if want_gradient and rows.stop - rows.start == n:
            torch.bmm(keys, weights.mT, out=noise_gradient)
        elif want_gradient:
            noise_gradient[:, :, rows] = torch.bmm(keys, weights.mT)
    samples = n - padding
    loss = _join(losses)[:, :samples].mean(1)
    if not want_gradient:
        return loss, None
    one_minus_p = _join(one_minus_p_parts)
    noise_gradient.addcmul_(positive.noise, one_minus_p.unsqueeze(1), value=-1)
    # No matrix product: a single row is sent to a routine that rounds by the operands' alignment.
    by_sample = workspace.empty("by_sample", (runs, 2, n), one_minus_p)
    torch.mul(one_minus_p.unsqueeze(1), labels.one_hot, out=by_sample)
    by_label = by_sample.sum(2).unsqueeze(1)  # [R, 1, 2]
    signal = (key.signal.flip(2) - positive.signal).mul_(by_label)
    return loss, FeatureGradient(signal, noise_gradient, weight=scale / samples)


def _positive_scores(roles: Roles, labels: Labels, scale: float) -> Tensor:
    """Scores of the positives less the signal part of the negatives' scores, [R, n].

    That part depends on the query's label alone: subtracted from the one positive instead of added
    to all negatives, it leaves the softmax unchanged.
    """
    query, key = roles.query, roles.key
    products = (query.both * roles.positive.both).sum(1)  # [R, n + 2]
    signal_part = products[:, -2:]
    # With itself as key that part is the sum of relu(a)^q relu(-a)^q, which is 0 exactly.
    if query is not key:
        signal_part = signal_part - (query.signal * key.signal.flip(2)).sum(1)
    chunk_positive = torch.where(labels.positive, signal_part[:, :1], signal_part[:, 1:])
    return chunk_positive.add_(products[:, :-2]).mul_(scale)


def minus_log(
    p_positive: Tensor, one_minus_p: Tensor, score_gap: Tensor, largest_weight: Tensor
) -> Tensor:
    """`-log p_ii`, [R, rows], from p_ii, 1 - p_ii, the score gap and the largest weight.

    `log(1 + (1 - p_ii) / p_ii)` is accurate down to losses near 0. Where p_ii underflows, the loss
    is the score gap (largest score less the positive's) less the log of the largest weight.
    """
    near = torch.log1p(one_minus_p / p_positive)
    return torch.where(
        p_positive < torch.finfo(p_positive.dtype).tiny, score_gap - torch.log(largest_weight), near
    )


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
    "minus_log",
    "one_pass",
]

"""One direction of the paper's losses with its whole gradient in one pass over the scores.

For queries H, keys K and positives P, all 2 m-dimensional (a signal patch and a noise patch),

    loss_i = -log( e^{s_ii} / (e^{s_ii} + sum_{j in N(i)} e^{s_ij}) ),   s_ij = <H_i, K_j> / (m tau)
    dL/dH_i = ( -(1 - p_ii) P_i + sum_{j in N(i)} p_ij K_j ) / (n m tau)   (8), spec of eq. (6), (9)

because the similarity stops the gradient at its second argument (4). R independent runs are done
side by side. The signal patch is never an n-row array: its features depend on the label only.

Numerics: everything in the inputs' dtype; any temperature is safe; a loss near 0 keeps its relative
accuracy through log1p. Deterministic, and a run's result does not depend on the other runs of the
batch: products and sums do not, and of torch's exponentials softmax alone treats a row's tail as it
treats its body (elementwise exp and exp2 use other code for the last few elements of a tensor).
Cost per run: 4 n^2 m flop; memory O(rows_per_chunk(n) n).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

CHUNK_SCORES = 1 << 22  # scores held at once for one run; a constant, so results never vary


@dataclass(frozen=True)
class Features:
    """Activations of one modality or view.

    Attributes:
        signal: Rows act(<w_r, mu>) and act(-<w_r, mu>), features of labels +1 and -1, [R, 2, m].
        noise: act(<w_r, xi_i>), [R, n, m].
    """

    signal: Tensor
    noise: Tensor


@dataclass(frozen=True)
class FeatureGradient:
    """Gradient of the mean loss with respect to query features, of the same layout.

    Attributes:
        signal: Summed over the samples of each label, [R, 2, m].
        noise: [R, n, m].
    """

    signal: Tensor
    noise: Tensor


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
    query: Features,
    key: Features,
    positive: Features,
    side: Tensor,
    negatives: Negatives,
    *,
    tau: float,
    want_gradient: bool = True,
) -> tuple[Tensor, FeatureGradient | None]:
    """Loss of one direction and its gradient with respect to the query's features.

    Args:
        query: Features that get the gradient.
        key: Features of the negatives.
        positive: Features of the positives (of the augmented view, or `key` itself).
        side: One-hot labels, column 0 for +1 and column 1 for -1, [R, n, 2].
        negatives: N(i).
        tau: Temperature.
        want_gradient: False computes the loss alone.

    Returns: The mean loss of each run, [R], and the gradient.
    """
    n, m = query.noise.shape[1:]
    scale = 1.0 / (m * tau)
    # With itself as key the other label's signal similarity is relu(a)^q relu(-a)^q = 0 exactly.
    between = None if query is key else torch.bmm(query.signal, key.signal.transpose(1, 2))
    own = (query.signal * positive.signal).sum(2, keepdim=True)  # [R, 2, 1]
    losses, noise, missing = [], [], []
    for rows in _chunks(n):
        scores = torch.baddbmm(
            negatives.rows(rows.start, rows.stop),
            query.noise[:, rows],
            key.noise.transpose(1, 2),
            alpha=scale,
        )
        mine = side[:, rows]
        if between is not None:
            scores.baddbmm_(torch.bmm(mine, between), side.transpose(1, 2), alpha=scale)
        matched = (query.noise[:, rows] * positive.noise[:, rows]).sum(2)
        matched = torch.baddbmm(matched.unsqueeze(2), mine, own).squeeze(2).mul_(scale)
        scores.diagonal(rows.start, dim1=1, dim2=2).copy_(matched)
        weights = torch.softmax(scores, 2)
        top, likeliest = scores.amax(2), weights.amax(2)
        weights.diagonal(rows.start, dim1=1, dim2=2).zero_()
        miss = weights.sum(2)  # 1 - p_ii without cancellation
        losses.append(
            torch.where(matched >= top, -torch.log1p(-miss), (top - matched) - torch.log(likeliest))
        )
        if want_gradient:
            pull = torch.bmm(weights, key.noise)
            noise.append(pull.addcmul_(positive.noise[:, rows], miss.unsqueeze(2), value=-1))
            missing.append(miss)
    loss = _join(losses).mean(1)
    if not want_gradient:
        return loss, None
    weight = scale / n
    by_label = torch.bmm(side.transpose(1, 2), _join(missing).unsqueeze(2))  # [R, 2, 1]
    signal = by_label * (key.signal.flip(1) - positive.signal)
    return loss, FeatureGradient(signal.mul_(weight), _join(noise).mul_(weight))


def _chunks(n: int) -> Iterator[slice]:
    rows = max(1, min(n, CHUNK_SCORES // n))
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


__all__ = [
    "FeatureGradient",
    "Features",
    "ListedNegatives",
    "Negatives",
    "OtherLabel",
    "bias_of",
    "one_pass",
]

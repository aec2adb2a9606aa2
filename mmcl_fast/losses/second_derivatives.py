"""Derivatives of a loss and of its gradient along one direction, in blocks of rows.

With weights u_i of the rows and tangents v of the inputs x:

    the derivative of loss_i               <grad loss_i, v>                           [N]
    the derivative of the gradient         d/de grad sum_i u_i loss_i (x + e v)       as x

The second is the Hessian of the weighted sum times v, so it serves forward and reverse mode. With
w_ij = u_i dloss_i/ds_ij the derivative of a softmax's weight is, for the score's s'_ij,
w'_ij = u_i p_ij (s'_ij - sum_l p_il s'_il); that of <q_i, k_j> / T follows by the product rule.

Numerics: Scores, sums and results in `Contrast.dtype`, by torch's operations on every device; one
direction after the other, so that a row's softmax is within a block. Memory: some blocks of scores
beside the results. Cost in products of 2*N*M*D flop: 7 for each direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmcl_fast.losses.contrast import Contrast, Gradients
from mmcl_fast.losses.target_means import target_shares

_BLOCK = 2**18  # scores computed at a time

# Tangents of the inputs, in the order and shapes of `Requested`; those of temperature and bias are
# 0-d, or one for each row's share of their gradient. None: 0.
Tangents = Gradients


def directional_derivatives(
    contrast: Contrast, upstream: Tensor, tangents: Tangents
) -> tuple[Tensor, Gradients]:
    """Derivatives of the row losses and of the gradients of sum_i upstream_i loss_i.

    Args:
        contrast: The problem.
        upstream: [N].
        tangents: The direction.

    Returns: [N], and gradients for every input of the contrast.
    """
    dtype = contrast.dtype
    cast = Gradients(*(None if x is None else x.to(dtype) for x in tangents))
    upstream = upstream.to(dtype)
    same_rows = contrast.key is None
    key = contrast.query if contrast.key is None else contrast.key
    sides = 2 if contrast.symmetric else 1
    key_tangent = cast.query if same_rows else cast.key
    if contrast.stopped:
        cast = cast._replace(positive_key=None, hard=None)
    rows = _Direction.of(
        replace(contrast, key=key), cast._replace(key=None if contrast.stopped else key_tangent)
    )
    losses, result = rows.derivatives(upstream / sides)
    if contrast.stopped:
        result = result._replace(key=None, positive_key=None, hard=None)
    if same_rows and result.query is not None and result.key is not None:
        result = result._replace(query=result.query + result.key, key=None)
    if not contrast.symmetric:
        return losses, result
    labels = contrast.labels and contrast.labels[::-1]
    pairwise = contrast.pairwise and contrast.pairwise.mirrored()
    mirrored = replace(contrast, query=key, key=contrast.query, labels=labels, pairwise=pairwise)
    swapped = cast._replace(query=key_tangent, key=None if contrast.stopped else cast.query)
    other_losses, other = _Direction.of(mirrored, swapped).derivatives(upstream / sides)
    other = other._replace(query=None if contrast.stopped else other.key, key=other.query)
    return (losses + other_losses) / 2, result.plus(other)


@dataclass(frozen=True)
class _Direction:
    """Queries against keys, in the compute dtype, with their tangents.

    Attributes:
        contrast: With this direction's query, key and labels.
        query: [N, D].
        key: [M, D].
        paired: [N, P, D]: candidates of one query each, the positive that is no key first.
        tangents: Of query, key, temperature and bias.
        paired_tangent: [N, P, D], or None.
        temperature: 0-d.
    """

    contrast: Contrast
    query: Tensor
    key: Tensor
    paired: Tensor
    tangents: Tangents
    paired_tangent: Tensor | None
    temperature: Tensor

    @classmethod
    def of(cls, contrast: Contrast, tangents: Tangents) -> _Direction:
        assert contrast.key is not None
        dtype = contrast.dtype
        query, key = contrast.query.to(dtype), contrast.key.to(dtype)
        features, moving = [], []
        if contrast.positive_key is not None:
            features.append(contrast.positive_key[:, None].to(dtype))
            tangent = tangents.positive_key
            moving.append(torch.zeros_like(features[-1]) if tangent is None else tangent[:, None])
        if contrast.hard is not None:
            features.append(contrast.hard.to(dtype))
            tangent = tangents.hard
            moving.append(torch.zeros_like(features[-1]) if tangent is None else tangent)
        none = query.new_empty(query.shape[0], 0, query.shape[1])
        given = tangents.positive_key is not None or tangents.hard is not None
        return cls(
            contrast=contrast,
            query=query,
            key=key,
            paired=torch.cat([none, *features], dim=1),
            tangents=tangents,
            paired_tangent=torch.cat(moving, dim=1) if given else None,
            temperature=contrast.temperature.to(dtype),
        )

    def derivatives(self, upstream: Tensor) -> tuple[Tensor, Gradients]:
        """Of the losses [N], and of the gradients."""
        n, columns = self.query.shape[0], self.key.shape[0] + self.paired[:1].numel()
        size = max(1, _BLOCK // max(1, columns))
        key = torch.zeros_like(self.key)
        blocks: list[tuple[Tensor, ...]] = []
        for start in range(0, max(n, 1), size):
            part = slice(start, min(start + size, n))
            of_key, *rows = self._block(part, upstream[part])
            key += of_key
            blocks.append(tuple(rows))
        losses, query, paired, temperature, bias = (torch.cat(x) for x in zip(*blocks, strict=True))
        first = 0 if self.contrast.positive_key is None else 1
        return losses, Gradients(
            query=query,
            key=key,
            positive_key=paired[:, 0].contiguous() if first else None,
            hard=None if self.contrast.hard is None else paired[:, first:].contiguous(),
            temperature=temperature,
            bias=None if self.contrast.bias is None else bias,
        )

    def _block(self, part: slice, upstream: Tensor) -> tuple[Tensor, ...]:
        """Derivatives for some rows: of key; of losses, query, paired, temperature, bias."""
        query, paired = self.query[part], self.paired[part]
        query_tangent, key_tangent = self.tangents.query, self.tangents.key
        inverse = 1 / self.temperature
        relative = _rows(self.tangents.temperature, part, query) * inverse  # T' / T
        scores = torch.cat([query @ self.key.T, _dots(paired, query)], dim=1) * inverse
        changes = -relative * scores
        if query_tangent is not None:
            moving = query_tangent[part]
            both = torch.cat([moving @ self.key.T, _dots(paired, moving)], dim=1)
            changes = changes + both * inverse
        if key_tangent is not None:
            changes[:, : len(self.key)] += (query @ key_tangent.T) * inverse
        if self.paired_tangent is not None:
            changes[:, len(self.key) :] += _dots(self.paired_tangent[part], query) * inverse
        biased, changed_bias = scores, _rows(self.tangents.bias, part, query)
        if self.contrast.bias is not None:
            biased = scores + self.contrast.bias.to(scores.dtype)
        positives, mass = self._positives(part)
        losses, weights, moved = _weights(
            self.contrast, self._negatives(part), positives, (biased, changes + changed_bias),
            upstream if mass is None else upstream * mass,
        )  # fmt: skip
        if mass is not None:
            losses = losses * mass
        of_temperature = relative * (weights * scores).sum(dim=1, keepdim=True)
        of_temperature -= (moved * scores + weights * changes).sum(dim=1, keepdim=True)
        of_bias = moved.sum(dim=1)
        moved = (moved - weights * relative) * inverse
        weights = weights * inverse
        shared, own = moved[:, : len(self.key)], moved[:, len(self.key) :]
        of_query = shared @ self.key + torch.bmm(own[:, None], paired)[:, 0]
        of_key, of_paired = shared.T @ query, own[:, :, None] * query[:, None]
        shared, own = weights[:, : len(self.key)], weights[:, len(self.key) :]
        if query_tangent is not None:
            of_key = of_key + shared.T @ query_tangent[part]
            of_paired = of_paired + own[:, :, None] * query_tangent[part, None]
        if key_tangent is not None:
            of_query = of_query + shared @ key_tangent
        if self.paired_tangent is not None:
            of_query = of_query + torch.bmm(own[:, None], self.paired_tangent[part])[:, 0]
        return of_key, losses, of_query, of_paired, (of_temperature * inverse)[:, 0], of_bias

    def _negatives(self, part: slice) -> Tensor:
        """Which candidates are negatives, [c, M + P]."""
        contrast, columns = self.contrast, self.key.shape[0]
        rows = torch.arange(self.query.shape[0], device=self.query.device)[part, None]
        column = torch.arange(columns, device=self.query.device)
        negatives = torch.ones(rows.shape[0], columns, dtype=torch.bool, device=rows.device)
        regular = column < columns - contrast.extra
        if contrast.labels is not None and not contrast.supervised:
            queries, keys = contrast.labels
            negatives[:, : keys.shape[0]] = queries[part, None] != keys
        if contrast.exclude_self:
            negatives &= ~(regular & (rows == column))
        if contrast.pairwise is not None:
            known = slice(0, columns - contrast.extra)
            excluded = contrast.pairwise.excluded_block(part, known, rows.device)
            if excluded is not None:
                negatives[:, : excluded.shape[1]] &= ~excluded
        if contrast.positive_key is None and not contrast.supervised:
            negatives &= column != self._positive_columns(rows)
        paired = negatives.new_ones(rows.shape[0], self.paired.shape[1])
        if contrast.positive_key is not None:
            paired[:, 0] = False
        padding = contrast.hard_padding(part)
        if padding is not None:
            paired[:, paired.shape[1] - padding.shape[1] :] &= ~padding
        return torch.cat([negatives, paired], dim=1)

    def _positives(self, part: slice) -> tuple[Tensor, Tensor | None]:
        """Shares of the candidates in the positive's score, [c, M + P]; rows sum to 1 or 0.

        The second result [c] counts how often a row's loss counts; None: once.
        """
        contrast, columns = self.contrast, self.key.shape[0]
        rows = torch.arange(self.query.shape[0], device=self.query.device)[part, None]
        column = torch.arange(columns + self.paired.shape[1], device=self.query.device)
        if contrast.positive_key is not None:
            return (column == columns).to(self.query.dtype).expand(rows.shape[0], -1), None
        if not contrast.supervised:
            return (column == self._positive_columns(rows)).to(self.query.dtype), None
        if contrast.pairwise is not None:
            shares, mass = target_shares(contrast, part)
            return pad(shares, (0, column.shape[0] - shares.shape[1])), mass
        assert contrast.labels is not None
        queries, keys = contrast.labels
        positives = queries[part, None] == keys
        if contrast.exclude_self:
            positives = positives & (rows != column)
        shares = positives.to(self.query.dtype)  # a quotient of integers would be float32
        return shares / shares.sum(dim=1, keepdim=True).clamp(min=1), None

    def _positive_columns(self, rows: Tensor) -> Tensor:
        return rows if self.contrast.positive is None else self.contrast.positive[rows]


def _weights(
    contrast: Contrast,
    negatives: Tensor,
    positives: Tensor,
    moving: tuple[Tensor, Tensor],
    upstream: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives of the losses [c], weights dL/ds [c, C], and the derivatives of those.

    Args:
        contrast: Form and smoothing.
        negatives: Which candidates are negatives, [c, C].
        positives: Shares of the candidates in the positive's score.
        moving: Scores and their derivatives.
        upstream: [c].
    """
    scores, changes = moving
    at_positive = (positives * scores).sum(dim=1, keepdim=True)
    positive_change = (positives * changes).sum(dim=1, keepdim=True)
    upstream = upstream[:, None] * (positives.sum(dim=1, keepdim=True) > 0)
    if contrast.form == "sigmoid":
        share = torch.sigmoid(scores) * negatives
        of_positive = torch.sigmoid(-at_positive)
        losses = (share * changes).sum(dim=1, keepdim=True) - of_positive * positive_change
        curvature = (1 - of_positive) * of_positive * positive_change
        moved = share * torch.sigmoid(-scores) * changes + positives * curvature
        return losses[:, 0], upstream * (share - positives * of_positive), upstream * moved
    candidates = torch.where(negatives, scores, -torch.inf)
    if contrast.form == "softmax":
        candidates = torch.cat([candidates, at_positive], dim=1)
    # Without candidates the loss is 0.
    any_left = candidates.amax(dim=1, keepdim=True) > -torch.inf
    share = torch.softmax(torch.where(any_left, candidates, 0.0), dim=1) * any_left
    if contrast.form == "softmax":
        all_changes = torch.cat([changes, positive_change], dim=1)
    else:
        all_changes, share = changes, share * negatives
    mean = (share * all_changes).sum(dim=1, keepdim=True)
    pulls = share[:, : scores.shape[1]].sum(dim=1, keepdim=True)
    moved = (share * (all_changes - mean))[:, : scores.shape[1]]
    weights = share[:, : scores.shape[1]] - positives * pulls
    if contrast.form == "softmax":
        moved = moved - positives * moved.sum(dim=1, keepdim=True)
    losses = mean - positive_change * any_left
    if contrast.smoothing:
        even = negatives.to(scores.dtype) + positives
        even = even / even.sum(dim=1, keepdim=True)
        weights = weights + contrast.smoothing * (positives - even)
        losses = losses + contrast.smoothing * ((positives - even) * changes).sum(1, keepdim=True)
    valid = positives.sum(dim=1) > 0
    return losses[:, 0] * valid, upstream * weights, upstream * moved


def _dots(features: Tensor, query: Tensor) -> Tensor:
    """<query_i, features_ik>, [c, P]."""
    return torch.bmm(features, query[:, :, None])[:, :, 0]


def _rows(x: Tensor | None, part: slice, like: Tensor) -> Tensor:
    """A tangent of rows, or one for all of them, as [c, 1] or [1, 1]."""
    if x is None:
        return like.new_zeros(1, 1)
    return x[part, None] if x.dim() else x.reshape(1, 1)


__all__ = ["Tangents", "directional_derivatives"]

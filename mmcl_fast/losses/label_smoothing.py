"""Label smoothing in closed form: the mean score of a query's candidates needs no scores."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.losses.class_sums import Classes
from mmcl_fast.losses.contrast import Contrast


def uniform_pull(contrast: Contrast) -> Tensor:
    """s_i+ minus the mean score of the candidates of query i: its positive and its negatives.

    Cross-entropy with a share e of the target spread over the candidates is the plain one plus e
    times this. Scores are linear in the keys, so it takes sums of keys alone: O((N + M) D).

    Args:
        contrast: Of the softmax form.

    Returns: [N], in `Contrast.dtype`, differentiable; both directions' mean if symmetric.
    """
    # In float64: what is left of a sum over all keys may be one of them, and must be as exact.
    query = contrast.query.double()
    key = query if contrast.key is None else contrast.key.double()
    first = _one_direction(contrast, query, key.detach() if contrast.stopped else key)
    if not contrast.symmetric:
        return first.to(contrast.dtype)
    other = contrast.labels and contrast.labels[::-1]
    mirror = Contrast(key, query, contrast.temperature, labels=other)
    second = _one_direction(mirror, key, query.detach() if contrast.stopped else query)
    return ((first + second) / 2).to(contrast.dtype)


def _one_direction(contrast: Contrast, query: Tensor, key: Tensor) -> Tensor:
    dtype, n = query.dtype, len(query)
    labelled = len(key) - contrast.extra
    rows = torch.arange(n, device=query.device)
    total = key.sum(dim=0).expand(n, -1)
    count = query.new_full((n,), len(key))
    if contrast.labels is not None:
        same = Classes.of(*contrast.labels, key[:labelled])
        total, count = total - same.total, count - same.size
    mine = torch.ones_like(rows, dtype=torch.bool)
    if contrast.positive_key is None:
        at = rows if contrast.positive is None else contrast.positive
        positive = key[at]
        total, count = _without(contrast, total, count, at, key, mine)
        mine = at != rows
    else:
        positive = contrast.positive_key.to(dtype)
    if contrast.exclude_self and labelled:
        mine = mine & (rows < labelled)
        at = rows.clamp(max=labelled - 1)
        total, count = _without(contrast, total, count, at, key, mine)
    if contrast.hard is not None:
        hard = contrast.hard.to(dtype)
        total, count = total + hard.sum(dim=1), count + hard.shape[1]
    # Sums that cancel leave rounding: where nothing is left, nothing is meant.
    total = torch.where((count > 0)[:, None], total, 0.0)
    mean = (total + positive) / (count + 1)[:, None]
    return (query * (positive - mean)).sum(dim=1) / contrast.temperature.to(dtype)


def _without(
    contrast: Contrast, total: Tensor, count: Tensor, at: Tensor, key: Tensor, applies: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums without key `at[i]` of query i where it applies and its label has not excluded it."""
    if contrast.labels is not None:
        own, other = contrast.labels
        applies = applies & (own != other[at])
    gone = applies.to(count.dtype)
    return total - gone[:, None] * key[at], count - gone


__all__ = ["uniform_pull"]

"""Label smoothing in closed form: the mean score of all candidates from a sum of keys."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.losses.class_sums import Classes
from mmcl_fast.losses.contrast import Contrast


def smoothing_term(contrast: Contrast) -> Tensor:
    """s_i+ minus the mean score of the candidates of query i, its positive and its negatives.

    Cross-entropy with a share e of the target spread over the candidates is plain cross-entropy
    plus e times this. Scores are linear in the keys, so sums of keys suffice: O((N + M) D).

    Args:
        contrast: Of the softmax form.

    Returns: [N], in `Contrast.dtype`, differentiable; both directions' mean if symmetric.
    """
    # In float64: the sum over all keys minus most of them must be as exact as one key.
    query = contrast.query.double()
    key = query if contrast.key is None else contrast.key.double()
    first = _one_direction(contrast, query, key.detach() if contrast.stopped else key)
    if not contrast.symmetric:
        return first.to(contrast.dtype)
    labels = contrast.labels and contrast.labels[::-1]
    mirrored = Contrast(key, query, contrast.temperature, labels=labels)
    second = _one_direction(mirrored, key, query.detach() if contrast.stopped else query)
    return ((first + second) / 2).to(contrast.dtype)


def _one_direction(contrast: Contrast, query: Tensor, key: Tensor) -> Tensor:
    dtype, n = query.dtype, len(query)
    labelled = len(key) - contrast.extra
    rows = torch.arange(n, device=query.device)
    key_sum = key.sum(dim=0).expand(n, -1)
    count = query.new_full((n,), len(key))
    if contrast.labels is not None:
        same = Classes.of(*contrast.labels, key[:labelled])
        key_sum, count = key_sum - same.key_sum, count - same.size
    applies = torch.ones_like(rows, dtype=torch.bool)
    if contrast.positive_key is None:
        at = rows if contrast.positive is None else contrast.positive
        positive = key[at]
        key_sum, count = _without(contrast, key_sum, count, at, key, applies)
        applies = at != rows
    else:
        positive = contrast.positive_key.to(dtype)
    if contrast.exclude_self and labelled:
        applies = applies & (rows < labelled)
        at = rows.clamp(max=labelled - 1)
        key_sum, count = _without(contrast, key_sum, count, at, key, applies)
    if contrast.hard is not None:
        hard = contrast.hard.to(dtype)
        key_sum, count = key_sum + hard.sum(dim=1), count + hard.shape[1]
    # Without candidates the cancelled sum has rounding errors.
    key_sum = torch.where((count > 0)[:, None], key_sum, 0.0)
    mean = (key_sum + positive) / (count + 1)[:, None]
    return (query * (positive - mean)).sum(dim=1) / contrast.temperature.to(dtype)


def _without(
    contrast: Contrast, key_sum: Tensor, count: Tensor, at: Tensor, key: Tensor, applies: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums without key `at[i]` of query i, where `applies` and it is not excluded by label."""
    if contrast.labels is not None:
        labels, key_labels = contrast.labels
        applies = applies & (labels != key_labels[at])
    removed = applies.to(count.dtype)
    return key_sum - removed[:, None] * key[at], count - removed


__all__ = ["smoothing_term"]

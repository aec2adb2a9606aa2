"""Targets and masks of pairs as matrices, from a matrix or a function on blocks of pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Pairs = Tensor | Callable[[Tensor, Tensor], Tensor]


def dense_pairs(pairs: Pairs, query: Tensor, key: Tensor) -> Tensor:
    """A matrix [N, M], or a function's values on all pairs."""
    if isinstance(pairs, Tensor):
        return pairs
    rows, columns = (torch.arange(len(x), device=x.device) for x in (query, key))
    return pairs(rows, columns)


def target_shares(
    query: Tensor,
    key: Tensor,
    positive: Tensor | None,
    positive_mask: Pairs | None,
    targets: Pairs | None,
    exclude_self: bool,  # noqa: FBT001 - as in the public loss
) -> Tensor:
    """The share of each key in each query's target, [N, M]; rows of positives sum to 1 or 0."""
    if targets is not None:
        shares = dense_pairs(targets, query, key).to(query.dtype)
    elif positive_mask is not None:
        shares = dense_pairs(positive_mask, query, key).to(query.dtype)
    else:
        assert positive is not None
        listed = (positive >= 0).to(query.dtype)
        shares = query.new_zeros(len(query), len(key))
        shares = shares.scatter_add(1, positive.clamp(min=0), listed)
    if exclude_self:
        shares = shares.masked_fill(
            torch.eye(*shares.shape, dtype=torch.bool, device=key.device), 0
        )
    if targets is not None:
        return shares
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1)


__all__ = ["Pairs", "dense_pairs", "target_shares"]

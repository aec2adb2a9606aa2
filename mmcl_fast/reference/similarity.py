"""The similarity, equation (4): an inner product of features that stops the second gradient."""

from __future__ import annotations

from torch import Tensor


def similarity(query: Tensor, key: Tensor) -> Tensor:
    """All pairs `Sim(x_i, x_j) = <H(x_i), sg K(x_j)> / m`: [n, 2 m] and [k, 2 m] give [n, k]."""
    m = query.shape[1] // 2
    return query @ key.detach().T / m


def paired_similarity(query: Tensor, key: Tensor) -> Tensor:
    """`Sim(x_i, x'_i)` of matching rows: two [n, 2 m] give [n]."""
    m = query.shape[1] // 2
    return (query * key.detach()).sum(dim=1) / m


__all__ = ["paired_similarity", "similarity"]

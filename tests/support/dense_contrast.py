"""A `Contrast` as its docstring says, pair by pair on dense matrices; gradients by autograd."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mmcl_fast.contrast import Contrast

FEATURES = ("query", "key", "positive_key", "hard", "temperature", "bias")


def dense_losses(contrast: Contrast) -> Tensor:
    """Row losses [N], differentiable, in the dtype of the features."""
    key = contrast.query if contrast.key is None else contrast.key
    frozen = key.detach() if contrast.stopped else key
    losses = _direction(contrast, contrast.query, frozen, contrast.labels)
    if not contrast.symmetric:
        return losses
    labels = None if contrast.labels is None else contrast.labels[::-1]
    frozen = contrast.query.detach() if contrast.stopped else contrast.query
    return (losses + _direction(contrast, key, frozen, labels)) / 2


def dense_value_and_grads(
    contrast: Contrast, upstream: Tensor | None = None, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Losses as "losses" and gradients of sum(upstream * losses), by the name of the input."""
    names = [name for name in FEATURES if getattr(contrast, name) is not None]
    leaves = {n: getattr(contrast, n).detach().to(dtype).requires_grad_() for n in names}
    losses = dense_losses(replace(contrast, **leaves))
    upstream = torch.ones_like(losses) if upstream is None else upstream.to(dtype)
    grads = torch.autograd.grad(
        losses, list(leaves.values()), upstream, allow_unused=True, materialize_grads=True
    )
    return {"losses": losses.detach(), **dict(zip(names, grads, strict=True))}


def negatives(contrast: Contrast, labels: tuple[Tensor, Tensor] | None) -> Tensor:
    """[N, M], whether a key is a negative; pair by pair."""
    n = len(contrast.query)
    m = n if contrast.key is None else len(contrast.key)
    found = torch.ones(n, m, dtype=torch.bool)
    for i in range(n):
        for j in range(m):
            if j == positive_of(contrast, i):
                found[i, j] = False
            elif j >= m - contrast.extra:
                continue
            elif (contrast.exclude_self and j == i) or (
                labels is not None and labels[0][i] == labels[1][j]
            ):
                found[i, j] = False
    return found


def positive_of(contrast: Contrast, i: int) -> int | None:
    """The key that is the positive of query i."""
    if contrast.positive_key is not None:
        return None
    return i if contrast.positive is None else int(contrast.positive[i])


def _direction(
    contrast: Contrast, query: Tensor, key: Tensor, labels: tuple[Tensor, Tensor] | None
) -> Tensor:
    allowed = negatives(contrast, labels).to(query.device)
    bias = 0.0 if contrast.bias is None else contrast.bias
    scores = query @ key.T / contrast.temperature + bias
    if contrast.positive_key is not None:
        other = contrast.positive_key.detach() if contrast.stopped else contrast.positive_key
        positive = (query * other).sum(dim=1) / contrast.temperature + bias
    else:
        rows = range(len(query))
        positive = torch.stack([scores[i, positive_of(contrast, i)] for i in rows] or [scores.sum()])
        positive = positive[: len(query)]
    negative = torch.where(allowed, scores, -torch.inf)
    if contrast.hard is not None:
        hard = contrast.hard.detach() if contrast.stopped else contrast.hard
        extra = torch.einsum("nd,nkd->nk", query, hard) / contrast.temperature + bias
        negative = torch.cat([negative, extra], dim=1)
    if contrast.form == "sigmoid":
        terms = torch.where(negative > -torch.inf, softplus(negative), 0.0)
        return softplus(-positive) + terms.sum(dim=1)
    if contrast.form == "softmax":
        negative = torch.cat([negative, positive[:, None]], dim=1)
        return torch.logsumexp(negative, dim=1) - positive
    some = (negative > -torch.inf).any(dim=1)
    safe = torch.where(some[:, None], negative, positive[:, None])
    return torch.where(some, torch.logsumexp(safe, dim=1) - positive, 0.0)


def cast(contrast: Contrast, dtype: torch.dtype) -> Contrast:
    """The same with every floating tensor in `dtype`."""
    found = {f.name: getattr(contrast, f.name) for f in fields(contrast)}
    return replace(
        contrast,
        **{n: x.to(dtype) for n, x in found.items() if isinstance(x, Tensor) and x.is_floating_point()},
    )


__all__ = ["FEATURES", "cast", "dense_losses", "dense_value_and_grads", "negatives", "positive_of"]

"""A `Contrast` as its docstring says, pair by pair on dense matrices; gradients by autograd."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mmcl_fast.losses.contrast import Contrast

FEATURES = ("query", "key", "positive_key", "hard", "temperature", "bias")  # as in `Requested`
Labels = tuple[Tensor, Tensor]


def dense_losses(contrast: Contrast, noise: Tensor | float = 0.0) -> Tensor:
    """Row losses [N], differentiable, in the dtype of the features.

    Args:
        contrast: The problem.
        noise: [N, M], added to the scores.
    """
    key = contrast.query if contrast.key is None else contrast.key
    losses = _direction(contrast, (contrast.query, key), contrast.labels, noise)
    if not contrast.symmetric:
        return losses
    labels = None if contrast.labels is None else contrast.labels[::-1]
    turned = noise.T if isinstance(noise, Tensor) else noise
    return (losses + _direction(contrast, (key, contrast.query), labels, turned)) / 2


def dense_value_and_grads(
    contrast: Contrast, upstream: Tensor, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Losses as "losses" and gradients of sum(upstream * losses), by the name of the input."""
    names = [name for name in FEATURES if getattr(contrast, name) is not None]
    leaves = {n: getattr(contrast, n).detach().to(dtype).requires_grad_() for n in names}
    losses = dense_losses(replace(contrast, **leaves))
    grads = torch.autograd.grad(
        losses,
        list(leaves.values()),
        upstream.to(dtype),
        allow_unused=True,
        materialize_grads=True,
    )
    return {"losses": losses.detach(), **dict(zip(names, grads, strict=True))}


def pair_gradient(contrast: Contrast, upstream: Tensor) -> Tensor:
    """Gradient of sum(upstream * losses) in the scores of query and key, [N, M], float64."""
    exact = cast(contrast, torch.float64)
    m = len(exact.query if exact.key is None else exact.key)
    noise = exact.query.new_zeros(len(exact.query), m).requires_grad_()
    return torch.autograd.grad(dense_losses(exact, noise), noise, upstream.double())[0]


def negatives(contrast: Contrast, labels: Labels | None) -> Tensor:
    """[N, M], whether a key is a negative; pair by pair."""
    n = len(contrast.query)
    m = n if contrast.key is None else len(contrast.key)
    own, other = ([], []) if labels is None else (x.tolist() for x in labels)
    found = [[True] * m for _ in range(n)]
    for i in range(n):
        positive = positive_of(contrast, i)
        for j in range(m):
            if j == positive:
                found[i][j] = False
            elif j < m - contrast.extra:
                itself = contrast.exclude_self and j == i
                found[i][j] = not (itself or (labels is not None and own[i] == other[j]))
    return torch.tensor(found, dtype=torch.bool, device=contrast.query.device).view(n, m)


def positive_of(contrast: Contrast, i: int) -> int | None:
    """The key that is the positive of query i."""
    if contrast.positive_key is not None:
        return None
    return i if contrast.positive is None else int(contrast.positive[i])


def cast(contrast: Contrast, dtype: torch.dtype) -> Contrast:
    """The same with features, temperature and bias in `dtype`."""
    found = {f.name: getattr(contrast, f.name) for f in fields(contrast) if f.name in FEATURES}
    return replace(contrast, **{n: None if x is None else x.to(dtype) for n, x in found.items()})


def _direction(
    contrast: Contrast,
    features: tuple[Tensor, Tensor],
    labels: Labels | None,
    noise: Tensor | float,
) -> Tensor:
    query, key = features
    if contrast.stopped:
        key = key.detach()
    allowed = negatives(contrast, labels)
    bias = 0.0 if contrast.bias is None else contrast.bias
    scores = query @ key.T / contrast.temperature + bias + noise
    if contrast.positive_key is not None:
        other = contrast.positive_key.detach() if contrast.stopped else contrast.positive_key
        positive = (query * other).sum(dim=1) / contrast.temperature + bias
    else:
        positives = [positive_of(contrast, i) for i in range(len(query))]
        positive = scores[range(len(query)), positives]
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


__all__ = [
    "FEATURES",
    "cast",
    "dense_losses",
    "dense_value_and_grads",
    "negatives",
    "pair_gradient",
    "positive_of",
]

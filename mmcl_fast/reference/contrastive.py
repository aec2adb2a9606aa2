"""InfoNCE as its formula says, on the dense score matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.reference.losses import contrastive_terms


def info_nce(  # noqa: PLR0913 - the arguments of the public loss
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    symmetric: bool = False,
    labels: Tensor | None = None,
    key_labels: Tensor | None = None,
    negatives: str = "all",
    positive_key: Tensor | None = None,
    stop_gradient: str | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The loss of `mmcl_fast.losses.info_nce`, differentiated by autograd; the measuring stick.

    loss_i = -log( e^{s_i+} / (e^{s_i+} + sum_{j in N(i)} e^{s_ij}) )
    s_ij = <q_i, k_j> / temperature

    Args: As for the public loss. Nothing is checked.

    Returns: A scalar, or [N] if `reduction` is "none", in the dtype of the inputs.

    Numerics: That of torch in the inputs' dtype; nothing is cast.

    Cost: Several N x M matrices.
    """
    own = labels
    other = labels if key_labels is None else key_labels
    if negatives == "all":
        own = other = None
    losses = one_direction(query, key, positive_key, temperature, own, other, stop_gradient)
    if symmetric:
        mirrored = one_direction(key, query, None, temperature, other, own, stop_gradient)
        losses = (losses + mirrored) / 2
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def one_direction(
    query: Tensor,
    key: Tensor,
    positive_key: Tensor | None,
    temperature: float | Tensor,
    labels: Tensor | None,
    key_labels: Tensor | None,
    stop_gradient: str | None,
) -> Tensor:
    """Losses [N] of queries [N, D] against keys [M, D]; label tensors exclude equal labels."""
    n, m = len(query), len(key)
    excluded = torch.zeros(n, m, dtype=torch.bool, device=query.device)
    if labels is not None and key_labels is not None:
        excluded = labels.unsqueeze(1) == key_labels.unsqueeze(0)
    if stop_gradient == "key":
        key = key.detach()
        positive_key = None if positive_key is None else positive_key.detach()
    scores = query @ key.T / temperature
    if positive_key is None:
        positive = scores.diagonal()
        excluded = excluded | torch.eye(n, m, dtype=torch.bool, device=query.device)
    else:
        positive = (query * positive_key).sum(dim=1) / temperature
    return contrastive_terms(positive, scores, ~excluded)


__all__ = ["info_nce", "one_direction"]

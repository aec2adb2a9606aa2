"""Losses related to InfoNCE by their formulas, on the dense score matrix.

Arguments are those of the public losses of the same names and are not checked. Functions return a
scalar, or the row losses if `reduction` is "none", in the dtype of the inputs; nothing is cast.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmcl_fast.reference.contrastive import one_direction, reduced


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float | Tensor = 0.5,
    reduction: str = "mean",
) -> Tensor:
    """NT-Xent of two views [B, D]: 2B anchors, rows of `first`, then of `second`.

    loss_i = log(sum_{j != i} e^{s_ij}) - s_i+,    s_ij = <z_i, z_j> / T, + the other view of i

    Source: Chen et al. 2020, A Simple Framework for Contrastive Learning (SimCLR), equation (1).
    """
    anchors = torch.cat([first, second])
    other_view = torch.arange(len(anchors), device=first.device).roll(len(first))
    losses = one_direction(
        anchors, anchors, temperature=temperature, exclude_self=True, positive=other_view
    )
    return reduced(losses, reduction)


def dcl(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    reduction: str = "mean",
) -> Tensor:
    """`nt_xent` without the positive in the denominator.

    loss_i = log(sum_{j != i, j != +} e^{s_ij}) - s_i+

    One pair alone (B = 1) has no negatives: its two losses are 0.

    Source: Yeh et al. 2022, Decoupled Contrastive Learning, equation (6), with both views'
    negatives.
    """
    anchors = torch.cat([first, second])
    scores = anchors @ anchors.T / temperature
    itself = torch.eye(len(anchors), dtype=torch.bool, device=first.device)
    other_view = itself.roll(len(first), dims=1)
    negatives = ~(itself | other_view)
    losses = masked_logsumexp(scores, negatives) - scores[other_view]
    return reduced(losses.masked_fill(~negatives.any(dim=1), 0), reduction)


def sup_con(
    query: Tensor,
    labels: Tensor,
    *,
    key: Tensor | None = None,
    key_labels: Tensor | None = None,
    exclude_self: bool = False,
    temperature: float | Tensor = 0.07,
    reduction: str = "mean",
) -> Tensor:
    """Supervised contrastive loss of queries [N, D] with labels [N].

    loss_i = 1/|P(i)| sum_{p in P(i)} (log(sum_{a in A(i)} e^{s_ia}) - s_ip)

    A(i) are all rows of `key`, but not row i if `exclude_self`; without `key` the queries
    themselves, and never i. P(i) are those of the query's label; without any, loss_i is 0.

    Source: Khosla et al. 2020, Supervised Contrastive Learning, equation (2).
    """
    if key is None:
        key, key_labels, exclude_self = query, labels, True
    other = labels if key_labels is None else key_labels
    scores = query @ key.T / temperature
    candidates = torch.ones_like(scores, dtype=torch.bool)
    if exclude_self:
        candidates = ~torch.eye(*scores.shape, dtype=torch.bool, device=query.device)
    positives = candidates & (labels.unsqueeze(1) == other.unsqueeze(0))
    count = positives.sum(dim=1)
    mean_positive = scores.masked_fill(~positives, 0).sum(dim=1) / count.clamp(min=1)
    losses = masked_logsumexp(scores, candidates) - mean_positive
    return reduced(losses.masked_fill(count == 0, 0), reduction)


def siglip(
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    reduction: str = "mean",
) -> Tensor:
    """The sigmoid loss of queries [N, D] against keys [M, D]; row i is the positive of query i.

    loss_i = log(1 + e^{-(s_ii + b)}) + sum_{j != i} log(1 + e^{s_ij + b})

    Source: Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training, equation (2).
    """
    logits = query @ key.T / temperature + bias
    sign = 2 * torch.eye(*logits.shape, dtype=logits.dtype, device=query.device) - 1
    # Not softplus: torch's is linear beyond 20, an error of 2e-9.
    return reduced(-logsigmoid(sign * logits).sum(dim=1), reduction)


def masked_logsumexp(scores: Tensor, mask: Tensor) -> Tensor:
    """`log sum_j e^{s_ij}` over a mask, both [N, M]; 0 and without gradient where that is empty."""
    pool = scores.masked_fill(~mask, -torch.inf)
    return torch.logsumexp(pool, dim=1).masked_fill(~mask.any(dim=1), 0)


__all__ = ["dcl", "masked_logsumexp", "nt_xent", "siglip", "sup_con"]

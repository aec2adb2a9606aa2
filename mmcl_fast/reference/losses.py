"""The paper's losses, equations (6) and (9), and their softmax weights (8)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.reference.similarity import paired_similarity, similarity


def other_label(labels: Tensor) -> Tensor:
    """`N(i) = {j : y_j != y_i}` as a mask: labels [n] give bool [n, n]."""
    return labels.unsqueeze(1) != labels.unsqueeze(0)


def contrastive_terms(positive: Tensor, scores: Tensor, negatives: Tensor) -> Tensor:
    """`-log( e^s_ii / (e^s_ii + sum_{j in N(i)} e^s_ij) )` for every i.

    Args:
        positive: Scores of the positives (similarity over tau), [n].
        scores: Scores of all pairs, [n, n].
        negatives: N(i) as a bool mask, [n, n].

    Returns: One loss per sample, [n].
    """
    pool = scores.masked_fill(~negatives, -torch.inf)
    return torch.logsumexp(torch.cat([positive.unsqueeze(1), pool], dim=1), dim=1) - positive


def softmax_weights(positive: Tensor, scores: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """`p_ii` [n] and `p_ij` [n, n] of equation (8); p_ij is 0 outside N(i)."""
    pool = scores.masked_fill(~negatives, -torch.inf)
    p = torch.softmax(torch.cat([positive.unsqueeze(1), pool], dim=1), dim=1)
    return p[:, 0], p[:, 1:]


def single_modal_loss(h: Tensor, h_augmented: Tensor, negatives: Tensor, tau: float) -> Tensor:
    """Equation (6): features of x and of its augmented view, [n, 2 m] each; a scalar."""
    positive = paired_similarity(h, h_augmented) / tau
    return contrastive_terms(positive, similarity(h, h) / tau, negatives).mean()


def multi_modal_loss(h: Tensor, g: Tensor, negatives: Tensor, tau: float) -> Tensor:
    """Equation (9): features of modality A and of B, [n, 2 m] each; the sum of both directions."""
    a_to_b = contrastive_terms(paired_similarity(h, g) / tau, similarity(h, g) / tau, negatives)
    b_to_a = contrastive_terms(paired_similarity(g, h) / tau, similarity(g, h) / tau, negatives)
    return a_to_b.mean() + b_to_a.mean()


__all__ = [
    "contrastive_terms",
    "multi_modal_loss",
    "other_label",
    "single_modal_loss",
    "softmax_weights",
]

"""Losses of models beside the paper's: further negatives, gradients through keys, cosines, labels.

`direction_loss` with negatives of the other label, `stops_keys` and similarity inner is one
direction of the paper's (6) and (9).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from mmcl_fast.reference.losses import contrastive_terms

NORM_FLOOR = 1e-12
"""Smallest norm that features are divided by, for the cosine."""


def negative_pairs(query_labels: Tensor, key_labels: Tensor, *, every_label: bool) -> Tensor:
    """N(i) as a mask: other samples, of the other labels or of every label.

    Args:
        query_labels: Labels, [n].
        key_labels: Labels of the keys, [n]; key i is never a negative of query i.
        every_label: Also negatives of the query's own label.

    Returns: bool [n, n].
    """
    others = ~torch.eye(len(query_labels), dtype=torch.bool, device=query_labels.device)
    if every_label:
        return others
    return others & (query_labels.unsqueeze(1) != key_labels.unsqueeze(0))


def direction_loss(
    query: Tensor,
    key: Tensor,
    positive: Tensor,
    negatives: Tensor,
    *,
    scale: Tensor | float,
    cosine: bool,
    stops_keys: bool,
) -> Tensor:
    """`mean_i -log( e^s_i+ / (e^s_i+ + sum_{j in N(i)} e^s_ij) )` with `s = scale <H, K>`.

    Args:
        query: Features H of the samples, [n, k].
        key: Features of the negatives, [n, k].
        positive: Features of each sample's positive, [n, k].
        negatives: N(i) as a bool mask, [n, n].
        scale: 1 / (m tau); with cosine 1 / tau.
        cosine: Features are divided by their norms, or by 1e-12 if that is larger.
        stops_keys: Keys and positives are constants.
    """
    if cosine:
        query, key, positive = (normalize(x, dim=1, eps=NORM_FLOOR) for x in (query, key, positive))
    if stops_keys:
        key, positive = key.detach(), positive.detach()
    of_positives = scale * (query * positive).sum(1)
    return contrastive_terms(of_positives, scale * (query @ key.T), negatives).mean()


def second_layer(m: int, like: Tensor) -> Tensor:
    """Signs a_r of the second layer of the network with loss logistic: half +1, half -1, [m]."""
    signs = like.new_ones(m)
    signs[m // 2 :] = -1
    return signs


def logistic_loss(embedding: Tensor, targets: Tensor, tau: float) -> Tensor:
    """`mean_i log(1 + e^(-t_i f_i))` with `f_i = (2 / m) sum_r a_r hbar_r(x_i) / tau`.

    Args:
        embedding: hbar of the samples, [n, m].
        targets: t, +1 or -1, [n].
        tau: Temperature.
    """
    m = embedding.shape[1]
    output = embedding @ second_layer(m, embedding) * (2.0 / (m * tau))
    return softplus(-targets * output).mean()


__all__ = ["NORM_FLOOR", "direction_loss", "logistic_loss", "negative_pairs", "second_layer"]

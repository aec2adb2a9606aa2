"""InfoNCE by its formula, on the dense score matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.reference.losses import contrastive_terms
from mmcl_fast.reference.pair_targets import Pairs, dense_pairs, target_shares


def info_nce(  # noqa: PLR0913 - the arguments of the public loss
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    symmetric: bool = False,
    labels: Tensor | None = None,
    key_labels: Tensor | None = None,
    negatives: str = "all",
    exclude_self: bool = False,
    positive: Tensor | None = None,
    positive_mask: Pairs | None = None,
    targets: Pairs | None = None,
    positive_key: Tensor | None = None,
    exclude_mask: Pairs | None = None,
    key_bias: Tensor | None = None,
    extra_negatives: Tensor | None = None,
    hard_negatives: Tensor | None = None,
    hard_negative_counts: Tensor | None = None,
    stop_gradient: str | None = None,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The loss of `mmcl_fast.losses.info_nce`, differentiated by autograd; the measuring stick.

    loss_i = (1 - eps) l_i+ + eps / C_i (l_i+ + sum_{j in N(i)} l_ij),      C_i = 1 + |N(i)|
    l_ij   = log(e^{s_i+} + sum_{k in N(i)} e^{s_ik}) - s_ij,               s_ij = <q_i, k_j> / T

    Without label smoothing eps this is l_i+. The candidates of query i are its positive, which is
    row i of `key`, row `positive[i]` of it, or row i of `positive_key`, and N(i): the other rows of
    `key` (not row i if `exclude_self`; of another label if "other_label"; outside `exclude_mask`),
    all `extra_negatives` and its own `hard_negatives` (the first `hard_negative_counts[i]` of them,
    where that is given).

    With a share p_ij of the target in each key, `targets`, or 1 / |P(i)| for the positives P(i) of
    `positive_mask` or `positive` [N, P], the loss is

        loss_i = sum_j p_ij (log sum_{k in A(i)} e^{s_ik} - s_ij)

    A(i) are the keys with a share, and N(i). Row i of `key` is in neither if `exclude_self`. A
    query without positives has loss 0. The scores of key j have `key_bias[j]` added. The mean is
    that of the rows, or with `weight` w the sum of w_i loss_i over the sum of w_i.

    Source: cross-entropy with probabilities as targets; for positives Khosla et al. 2020,
    Supervised Contrastive Learning, equation (2).

    Args: As for the public loss. Nothing is checked.

    Returns: A scalar, or [N] if `reduction` is "none", in the dtype of the inputs.

    Numerics: That of torch in the inputs' dtype; nothing is cast.

    Cost: Several N x M matrices.
    """

    def as_key(tensor: Tensor) -> Tensor:
        return tensor.detach() if stop_gradient == "key" else tensor

    query_labels = labels if negatives == "other_label" else None
    other_labels = (
        key_labels if query_labels is not None and key_labels is not None else query_labels
    )
    excluded = None if exclude_mask is None else dense_pairs(exclude_mask, query, key)
    several = positive is not None and positive.ndim > 1
    shares = None
    if several or positive_mask is not None or targets is not None:
        shares = target_shares(query, key, positive, positive_mask, targets, exclude_self)
        positive = None
    losses = one_direction(
        query,
        as_key(key),
        temperature=temperature,
        labels=query_labels,
        key_labels=other_labels,
        exclude_self=exclude_self,
        shares=shares,
        excluded=excluded,
        key_bias=key_bias if key_bias is None else as_key(key_bias),
        positive=positive,
        positive_key=None if positive_key is None else as_key(positive_key),
        extra_negatives=None if extra_negatives is None else as_key(extra_negatives),
        hard_negatives=None if hard_negatives is None else as_key(hard_negatives),
        hard_negative_counts=hard_negative_counts,
        label_smoothing=label_smoothing,
    )
    if symmetric:
        mirrored_shares = None
        if positive_mask is not None:
            mirrored_mask = dense_pairs(positive_mask, query, key).T
            mirrored_shares = target_shares(key, query, None, mirrored_mask, None, exclude_self)
        mirrored = one_direction(
            key,
            as_key(query),
            temperature=temperature,
            labels=other_labels,
            key_labels=query_labels,
            shares=mirrored_shares,
            excluded=None if excluded is None else excluded.T,
            label_smoothing=label_smoothing,
        )
        losses = (losses + mirrored) / 2
    if weight is None:
        return reduced(losses, reduction)
    weighted = reduced(losses * weight, "none" if reduction == "none" else "sum")
    return weighted / weight.sum() if reduction == "mean" else weighted


def one_direction(  # noqa: PLR0913 - as above
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor,
    labels: Tensor | None = None,
    key_labels: Tensor | None = None,
    exclude_self: bool = False,
    shares: Tensor | None = None,
    excluded: Tensor | None = None,
    key_bias: Tensor | None = None,
    positive: Tensor | None = None,
    positive_key: Tensor | None = None,
    extra_negatives: Tensor | None = None,
    hard_negatives: Tensor | None = None,
    hard_negative_counts: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Losses [N] of queries [N, D] against keys [M, D]; label tensors exclude equal labels.

    `shares` [N, M] of the keys in the target replace the one positive.
    """
    n, m = len(query), len(key)
    scores = query @ key.T / temperature
    if key_bias is not None:
        scores = scores + key_bias
    allowed = torch.ones(n, m, dtype=torch.bool, device=query.device)
    if labels is not None and key_labels is not None:
        allowed = labels.unsqueeze(1) != key_labels.unsqueeze(0)
    if exclude_self:
        allowed = allowed & ~torch.eye(n, m, dtype=torch.bool, device=query.device)
    if excluded is not None:
        allowed = allowed & ~excluded
    if shares is not None:
        allowed = allowed | (shares > 0)
        positive_score = (shares * scores).sum(dim=1)
    elif positive_key is not None:
        positive_score = (query * positive_key).sum(dim=1) / temperature
    else:
        positive_column = torch.arange(n, device=query.device) if positive is None else positive
        positive_score = scores.gather(1, positive_column.unsqueeze(1)).squeeze(1)
        allowed = allowed.scatter(1, positive_column.unsqueeze(1), value=False)
    scores, allowed = with_more_negatives(
        query, scores, allowed, temperature, extra_negatives, hard_negatives, hard_negative_counts
    )
    if shares is not None:
        total = shares.sum(dim=1)
        # Without a target any finite sum does, as it counts 0 times.
        candidates = scores.masked_fill(~allowed & (total > 0).unsqueeze(1), -torch.inf)
        return total * candidates.logsumexp(dim=1) - positive_score
    losses = contrastive_terms(positive_score, scores, allowed)
    if label_smoothing:
        score_sum = positive_score + scores.masked_fill(~allowed, 0).sum(dim=1)
        losses = losses + label_smoothing * (positive_score - score_sum / (1 + allowed.sum(dim=1)))
    return losses


def with_more_negatives(
    query: Tensor,
    scores: Tensor,
    allowed: Tensor,
    temperature: float | Tensor,
    extra_negatives: Tensor | None,
    hard_negatives: Tensor | None,
    hard_negative_counts: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Scores [N, C] and which of them are negatives, with the columns of further negatives."""
    if extra_negatives is not None:
        extra_scores = query @ extra_negatives.T / temperature
        scores = torch.cat([scores, extra_scores], dim=1)
        allowed = torch.cat([allowed, torch.ones_like(extra_scores, dtype=torch.bool)], dim=1)
    if hard_negatives is not None:
        present = torch.ones(hard_negatives.shape[:2], dtype=torch.bool, device=query.device)
        if hard_negative_counts is not None:
            places = torch.arange(hard_negatives.shape[1], device=query.device)
            present = places < hard_negative_counts.unsqueeze(1)
            hard_negatives = hard_negatives.masked_fill(~present.unsqueeze(2), 0)  # NaN even
        hard_scores = (query.unsqueeze(1) * hard_negatives).sum(dim=2) / temperature
        scores = torch.cat([scores, hard_scores], dim=1)
        allowed = torch.cat([allowed, present], dim=1)
    return scores, allowed


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """Losses [N] as they are ("none"), their mean, or their sum."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


__all__ = ["info_nce", "one_direction", "reduced", "with_more_negatives"]

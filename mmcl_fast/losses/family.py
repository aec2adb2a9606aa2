"""NT-Xent, decoupled and supervised contrastive losses, and SigLIP: the relatives of InfoNCE."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Contrast, Form
from mmcl_fast.losses.dispatch import may_keep_constants, run, scalar
from mmcl_fast.losses.evaluation import Reduction
from mmcl_fast.losses.mixed_precision import in_one_dtype
from mmcl_fast.losses.validation import (
    check_bias,
    check_features,
    check_labels,
    check_like_query,
    check_not_traced,
    check_options,
    check_temperature,
    check_tensors,
)


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float | Tensor = 0.5,
    reduction: Reduction = "mean",
    backend: str = "auto",
) -> Tensor:
    """NT-Xent of SimCLR: each view against its partner and all other views of the batch.

    With z = [first; second], s_ij = <z_i, z_j> / temperature and p(i) the partner of i:

    loss_i = -log( e^{s_ip(i)} / sum_{j != i} e^{s_ij} ),   i = 1 .. 2B

    Scores are symmetric, and only half of them are computed.

    Args:
        first: One view of each example, [B, D]; float16 | bfloat16 | float32 | float64. Nothing is
            normalised.
        second: The other, same shape, dtype and device.
        temperature: As for `info_nce`.
        reduction: "mean" over the 2B views, "sum", or "none" for [2B]: rows of `first`, then of
            `second`.
        backend: As for `info_nce`.

    Returns: A scalar, or [2B]; float32, or float64 for float64 input.

    Raises:
        ValueError, TypeError, BackendUnavailableError: As for `info_nce`.

    See: Chen et al. 2020 (SimCLR), equation 1; mmcl_fast.reference.nt_xent (meaning).
    """
    return two_views("softmax", (first, second), temperature, reduction, backend)


def dcl(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    reduction: Reduction = "mean",
    backend: str = "auto",
) -> Tensor:
    """Decoupled contrastive loss: NT-Xent without the positive in the denominator.

    loss_i = -s_ip(i) + log( sum_{j != i, p(i)} e^{s_ij} ),   i = 1 .. 2B

    Arguments, result and errors are those of `nt_xent`; with B = 1 there are no negatives, and the
    loss is 0.

    See: Yeh et al. 2022 (Decoupled Contrastive Learning), equation 6; mmcl_fast.reference.dcl.
    """
    return two_views("decoupled", (first, second), temperature, reduction, backend)


def sup_con(  # noqa: PLR0913 - two sides with their labels
    query: Tensor,
    labels: Tensor,
    *,
    key: Tensor | None = None,
    key_labels: Tensor | None = None,
    exclude_self: bool = False,
    temperature: float | Tensor = 0.07,
    reduction: Reduction = "mean",
    backend: str = "auto",
) -> Tensor:
    """Supervised contrastive loss: every key of the query's label is a positive.

    loss_i = -1/|P(i)| sum_{p in P(i)} log( e^{s_ip} / sum_{a in A(i)} e^{s_ia} )

    A(i) are all keys, but for i itself; P(i) those of them with the label of i. The mean of the
    positives' scores is the score of their mean, so this costs what one positive costs.

    Args:
        query: [N, D], float16 | bfloat16 | float32 | float64. Nothing is normalised.
        labels: [N], integer, bool or floating.
        key: [M, D], same dtype and device. None: the queries themselves, each without itself.
        key_labels: [M], dtype of `labels`; needed with `key` if M != N.
        exclude_self: With `key`: row i of `key` is query i itself and is left out.
        temperature: As for `info_nce`.
        reduction: "mean" over all N queries, "sum", or "none" for [N].
        backend: As for `info_nce`.

    Returns: A scalar, or [N]; float32, or float64 for float64 input. A query without positives has
        loss 0 and no gradient.

    Raises:
        ValueError, TypeError, BackendUnavailableError: As for `info_nce`.

    See: Khosla et al. 2020, equation 2 (L_out); mmcl_fast.reference.sup_con (meaning).
    """
    check_not_traced()
    if torch._C._is_any_autocast_enabled():
        query, key = in_one_dtype(query, key)
    check_options(exclude_self=exclude_self, reduction=reduction)
    check_tensors(query, query if key is None else key, reduction=reduction)
    check_temperature(temperature, query.device)
    if key is None and exclude_self:
        raise ValueError("exclude_self: expected False without key, got True")
    if key is None and key_labels is not None:
        raise ValueError("key_labels: expected None without key, got a tensor")
    keys = query if key is None else key
    pair = check_labels(query, keys, labels, key_labels, negatives="other_label")
    assert pair is not None
    contrast = Contrast(
        query=query,
        key=key,
        temperature=scalar(temperature, query),
        labels=pair,
        form="decoupled",
        supervised=True,
        exclude_self=key is None or exclude_self,
    )
    return run(contrast, reduction, backend)


def siglip(
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    reduction: Reduction = "mean",
    backend: str = "auto",
) -> Tensor:
    """Sigmoid loss of SigLIP: every pair is its own two-class problem.

    loss_i = log(1 + e^{-(s_ii + bias)}) + sum_{j != i} log(1 + e^{s_ij + bias})

    Args:
        query: [N, D], float16 | bfloat16 | float32 | float64. Nothing is normalised.
        key: [M, D], M >= N, same dtype and device; row i is the positive of query i.
        temperature: As for `info_nce`; open_clip's scale is its inverse.
        bias: Added to every score; a floating tensor of one element receives a gradient.
        reduction: "mean" over the N queries, "sum", or "none" for [N].
        backend: As for `info_nce`.

    Returns: A scalar, or [N]; float32, or float64 for float64 input.

    Raises:
        ValueError, TypeError, BackendUnavailableError: As for `info_nce`.

    See: Zhai et al. 2023, algorithm 1; mmcl_fast.reference.siglip (meaning).
    """
    check_options(reduction=reduction)
    return pairs_by_sigmoid(query, key, temperature, bias, reduction, backend)


def pairs_by_sigmoid(
    query: Tensor,
    key: Tensor,
    temperature: float | Tensor,
    bias: float | Tensor,
    reduction: Reduction,
    backend: str,
    *,
    inverse: bool = False,
) -> Tensor:
    """`siglip` of the temperature, or of its inverse, whose value is not checked."""
    check_not_traced()
    if torch._C._is_any_autocast_enabled():
        query, key = in_one_dtype(query, key)
    check_tensors(query, key, reduction=reduction)
    if key.shape[0] < query.shape[0]:
        raise ValueError(
            f"key: expected at least the {query.shape[0]} rows of query, whose positives they are, "
            f"got {key.shape[0]} rows"
        )
    if not inverse:
        check_temperature(temperature, query.device)
    check_bias(bias, query.device)
    contrast = Contrast(
        query=query,
        key=key,
        temperature=scalar(temperature, query),
        bias=scalar(bias, query),
        form="sigmoid",
        inverse=inverse,
    )
    return run(contrast, reduction, backend)


def two_views(
    form: Form,
    views: tuple[Tensor, Tensor],
    temperature: float | Tensor,
    reduction: Reduction,
    backend: str,
    *,
    normalised: bool = False,
) -> Tensor:
    """`nt_xent` ("softmax") or `dcl` ("decoupled") of the views, or of their unit rows."""
    first, second = views
    check_not_traced()
    if torch._C._is_any_autocast_enabled():
        first, second = in_one_dtype(first, second)
    check_options(reduction=reduction)
    check_features("first", first)
    check_like_query("second", second, first, "first")
    if first.shape[0] != second.shape[0]:
        raise ValueError(
            f"second: expected the {first.shape[0]} rows of first, got {second.shape[0]}"
        )
    if reduction == "mean" and first.shape[0] == 0:
        raise ValueError('first: expected at least 1 row with reduction="mean", got 0')
    check_temperature(temperature, first.device)
    contrast = Contrast(
        query=first,
        second=second,
        key=None,
        temperature=scalar(temperature, first),
        positive=_partners(first),
        form=form,
        exclude_self=True,
        normalised=normalised,
    )
    return run(contrast, reduction, backend)


def _partners(first: Tensor) -> Tensor:
    """The row of each view's partner, [2B], among the rows of both views."""
    if first.is_cpu and may_keep_constants():
        return _constant_partners(first.shape[0])
    return torch.arange(2 * first.shape[0], device=first.device).roll(first.shape[0])


@lru_cache(maxsize=8)
def _constant_partners(pairs: int) -> Tensor:
    with torch.inference_mode(mode=False):
        return torch.arange(2 * pairs, device="cpu").roll(pairs)


__all__ = ["dcl", "nt_xent", "pairs_by_sigmoid", "siglip", "sup_con", "two_views"]

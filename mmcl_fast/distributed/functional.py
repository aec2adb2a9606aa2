"""The distributed losses as functions: every process of a group calls them together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmcl_fast.distributed.arguments import (
    bias_of,
    check_pairs,
    check_some_rows,
    temperature_of,
    temperature_of_scale,
)
from mmcl_fast.distributed.autograd import GradientScale, Mode
from mmcl_fast.distributed.collective import Setting, collective_loss
from mmcl_fast.distributed.group import Group
from mmcl_fast.distributed.problem import LocalProblem
from mmcl_fast.losses.contrast import Contrast, Form
from mmcl_fast.losses.mixed_precision import in_one_dtype
from mmcl_fast.losses.validation import (
    check_features,
    check_labels,
    check_more_negatives,
    check_options,
    check_smoothing,
)


def infonce_across(  # noqa: PLR0913 - the loss's own options
    setting: Setting,
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor,
    symmetric: bool,
    labels: Tensor | None,
    extra_negatives: Tensor | None,
    hard_negatives: Tensor | None,
    negatives: Literal["all", "other_label"],
    stop_gradient: Literal["key"] | None,
    label_smoothing: float,
) -> Tensor:
    """See `DistributedInfoNCELoss`."""

    def local() -> LocalProblem:
        queries, keys, extra, hard = in_one_dtype(query, key, extra_negatives, hard_negatives)
        check_options(symmetric=symmetric, negatives=negatives, stop_gradient=stop_gradient)
        check_pairs("query", queries, "key", keys)
        check_smoothing(label_smoothing)
        check_more_negatives(queries, extra, hard, symmetric=symmetric)
        pair = check_labels(queries, keys, labels, None, negatives=negatives)
        stopped = stop_gradient is not None
        others = {"key": keys, "hard": hard, "extra": extra}
        if stopped and not symmetric:
            others = {name: None if x is None else x.detach() for name, x in others.items()}
        contrast = Contrast(
            query=queries,
            key=others["key"],
            hard=others["hard"],
            temperature=temperature_of(temperature, queries),
            # Explicit with labels, so that rows keep their order.
            positive=None if pair is None else torch.arange(len(queries), device=queries.device),
            labels=None if pair is None else (_sendable(pair[0]), _sendable(pair[1])),
            symmetric=symmetric,
            stopped=stopped,
        )
        return LocalProblem(contrast, label_smoothing=float(label_smoothing), extra=others["extra"])

    return collective_loss(setting, local)


def siglip_across(
    setting: Setting,
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor,
    bias: float | Tensor,
) -> Tensor:
    """See `DistributedSigLIPLoss`."""

    def local() -> LocalProblem:
        queries, keys = in_one_dtype(query, key)
        check_pairs("query", queries, "key", keys)
        contrast = Contrast(
            query=queries,
            key=keys,
            temperature=temperature_of(temperature, queries),
            bias=bias_of(bias, queries),
            form="sigmoid",
        )
        return LocalProblem(contrast)

    return collective_loss(setting, local)


def two_views_across(
    setting: Setting, form: Form, first: Tensor, second: Tensor, *, temperature: float | Tensor
) -> Tensor:
    """See `DistributedNTXentLoss` (form "softmax") and `DistributedDCLLoss` ("decoupled")."""

    def local() -> LocalProblem:
        views = in_one_dtype(first, second)
        check_pairs("first", views[0], "second", views[1])
        both = torch.cat(views)
        contrast = Contrast(
            query=both,
            key=None,
            temperature=temperature_of(temperature, both),
            positive=torch.arange(len(both), device=both.device).roll(len(first)),
            form=form,
            exclude_self=True,
        )
        return LocalProblem(contrast)

    return collective_loss(setting, local)


def supcon_across(
    setting: Setting, query: Tensor, labels: Tensor, *, temperature: float | Tensor
) -> Tensor:
    """See `DistributedSupConLoss`."""

    def local() -> LocalProblem:
        check_features("query", query)
        check_some_rows("query", query)
        pair = check_labels(query, query, labels, None, negatives="other_label")
        assert pair is not None
        contrast = Contrast(
            query=query,
            key=None,
            temperature=temperature_of(temperature, query),
            positive_key=query.new_zeros(()).expand_as(query),
            form="decoupled",
            exclude_self=True,
        )
        return LocalProblem(contrast, classes=_sendable(pair[0]))

    return collective_loss(setting, local)


def clip_loss(  # noqa: PLR0913 - open_clip's options, and where it runs
    image_features: Tensor,
    text_features: Tensor,
    scale: float | Tensor,
    *,
    group: Group | None = None,
    mode: Mode = "gather",
    gradient: GradientScale = "ddp",
    gather_with_grad: bool = True,
    local_loss: bool = False,
) -> Tensor:
    """Symmetric InfoNCE of the whole batch, in the arguments of open_clip.

    Options of open_clip's `ClipLoss` decide what a rank returns and what of it is differentiated.
    With L the loss of the whole batch, L_r the mean over the rows of rank r (in both directions,
    against everyone's rows; L is the mean of L_r where ranks have equal batches), W ranks, x the
    features of rank r and s the scale, a rank returns under `gradient="ddp"`:

        gather_with_grad  local_loss  value  gradient of x             of s
        True              False       L      W * dL/dx                 dL/ds
        True              True        L_r    sum_q dL_q/dx             mean_q dL_q/ds
        False             False       L      dL/dx                     dL/ds
        False             True        L_r    dL_r/dx, keys constant    mean_q dL_q/ds

    The average over ranks that `DistributedDataParallel` takes is that of open_clip in every row.
    In the first it is the gradient of L, and in the second that of the mean of L_q. In the third it
    is 1/W of L's gradient through the encoders, but all of it through the scale. In the fourth each
    direction is differentiated in its query alone, as `info_nce` does with `stop_gradient="key"`.

    Args:
        image_features: This rank's rows, [n, D]; nothing is normalised.
        text_features: Their pairs, [n, D].
        scale: 1 / temperature, > 0 (open_clip's scale, which arrives exponentiated); a tensor of
            shape [] or [1] receives a gradient.
        group: As for `DistributedInfoNCELoss`, and so are mode and gradient, result and errors.
        mode: "gather" | "ring".
        gradient: "ddp" | "sum", which is 1/W of it.
        gather_with_grad: Whether features of other ranks are differentiated; see above.
        local_loss: Whether each rank returns the mean over its own rows; see above.

    Returns: The loss over the whole batch, the same on every rank; with `local_loss` that of this
        rank's rows.
    """
    setting = Setting(
        group, mode, gradient, local_loss=local_loss, gather_with_grad=gather_with_grad
    )

    def local() -> LocalProblem:
        images, texts = in_one_dtype(image_features, text_features)
        check_pairs("image_features", images, "text_features", texts)
        contrast = Contrast(
            query=images,
            key=texts,
            temperature=temperature_of_scale(scale, images),
            symmetric=True,
            stopped=local_loss and not gather_with_grad,
        )
        return LocalProblem(contrast)

    return collective_loss(setting, local)


def siglip_loss(
    image_features: Tensor,
    text_features: Tensor,
    scale: float | Tensor,
    bias: float | Tensor,
    *,
    group: Group | None = None,
    mode: Mode = "ring",
    gradient: GradientScale = "ddp",
) -> Tensor:
    """The sigmoid loss of the whole batch, in the arguments of open_clip; see `clip_loss`.

    Args:
        image_features: This rank's rows, [n, D]; nothing is normalised.
        text_features: Their pairs, [n, D].
        scale: 1 / temperature, > 0; a tensor of shape [] or [1] receives a gradient.
        bias: Added to every score; a tensor of shape [] or [1] receives a gradient.
        group: As for `DistributedSigLIPLoss`, and so are mode and gradient, result and errors.
        mode: "gather" | "ring".
        gradient: "ddp" | "sum".

    Returns: The loss over the whole batch, the same on every rank.
    """

    def local() -> LocalProblem:
        images, texts = in_one_dtype(image_features, text_features)
        check_pairs("image_features", images, "text_features", texts)
        contrast = Contrast(
            query=images,
            key=texts,
            temperature=temperature_of_scale(scale, images),
            bias=bias_of(bias, images),
            form="sigmoid",
        )
        return LocalProblem(contrast)

    return collective_loss(Setting(group, mode, gradient), local)


def _sendable(labels: Tensor) -> Tensor:
    """Labels in a dtype that every backend can send."""
    return labels.to(torch.float64 if labels.is_floating_point() else torch.int64)


__all__ = [
    "clip_loss",
    "infonce_across",
    "siglip_across",
    "siglip_loss",
    "supcon_across",
    "two_views_across",
]

"""The distributed losses as functions: every process of a group calls them together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmcl_fast.distributed.autograd import (
    Call,
    GradientScale,
    Mode,
    distributed_loss,
    requested_of,
)
from mmcl_fast.distributed.exchange import EXCHANGES
from mmcl_fast.distributed.group import (
    DTYPES,
    CallSignature,
    Group,
    agree,
    equal_members,
    group_of,
    report_refusal,
)
from mmcl_fast.losses.contrast import Contrast, Form
from mmcl_fast.losses.dispatch import scalar
from mmcl_fast.losses.validation import (
    check_bias,
    check_features,
    check_labels,
    check_like_query,
    check_options,
    check_temperature,
)

_SCALES = ("ddp", "sum")
_FORMS: tuple[Form, ...] = ("softmax", "decoupled", "sigmoid")


class Setting(NamedTuple):
    """How a distributed loss runs.

    Attributes:
        group: The processes; None: the default group. Ranks are those inside the group.
        mode: "gather" | "ring".
        gradient: "ddp" | "sum".
        equal_batches: A promise that every rank has as many rows as this one, and equal arguments;
            it is not checked.
    """

    group: Group | None = None
    mode: Mode = "gather"
    gradient: GradientScale = "ddp"
    equal_batches: bool = False

    def check(self) -> None:
        """Each option is one of its known values.

        Raises:
            ValueError: It is not; the message lists them.
        """
        for name, value, known in (
            ("mode", self.mode, tuple(EXCHANGES)),
            ("gradient", self.gradient, _SCALES),
        ):
            if value not in known:
                listed = " | ".join(repr(choice) for choice in known)
                raise ValueError(f"{name}: expected {listed}, got {value!r}")


def infonce_across(  # noqa: PLR0913 - the loss's own options
    setting: Setting,
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor,
    symmetric: bool,
    labels: Tensor | None,
    negatives: Literal["all", "other_label"],
    stop_gradient: Literal["key"] | None,
) -> Tensor:
    """See `DistributedInfoNCELoss`."""

    def local() -> Contrast:
        check_options(symmetric=symmetric, negatives=negatives, stop_gradient=stop_gradient)
        _check_pairs("query", query, "key", key)
        check_temperature(temperature, query.device)
        pair = check_labels(query, key, labels, None, negatives=negatives)
        stopped = stop_gradient is not None
        return Contrast(
            query=query,
            key=key.detach() if stopped and not symmetric else key,
            temperature=scalar(temperature, query),
            # Explicit with labels, so that rows keep their order.
            positive=None if pair is None else torch.arange(len(query), device=query.device),
            labels=None if pair is None else (_sendable(pair[0]), _sendable(pair[1])),
            symmetric=symmetric,
            stopped=stopped,
        )

    return _run(setting, local)


def siglip_across(
    setting: Setting,
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor,
    bias: float | Tensor,
) -> Tensor:
    """See `DistributedSigLIPLoss`."""

    def local() -> Contrast:
        _check_pairs("query", query, "key", key)
        check_temperature(temperature, query.device)
        check_bias(bias, query.device)
        return Contrast(
            query=query,
            key=key,
            temperature=scalar(temperature, query),
            bias=scalar(bias, query),
            form="sigmoid",
        )

    return _run(setting, local)


def ntxent_across(
    setting: Setting, first: Tensor, second: Tensor, *, temperature: float | Tensor
) -> Tensor:
    """See `DistributedNTXentLoss`."""

    def local() -> Contrast:
        _check_pairs("first", first, "second", second)
        check_temperature(temperature, first.device)
        both = torch.cat([first, second])
        return Contrast(
            query=both,
            key=None,
            temperature=scalar(temperature, both),
            positive=torch.arange(len(both), device=both.device).roll(len(first)),
            exclude_self=True,
        )

    return _run(setting, local)


def clip_loss(
    image_features: Tensor,
    text_features: Tensor,
    scale: float | Tensor,
    *,
    group: Group | None = None,
    mode: Mode = "gather",
    gradient: GradientScale = "ddp",
) -> Tensor:
    """Symmetric InfoNCE of the whole batch, in the arguments of open_clip.

    Args:
        image_features: This rank's rows, [n, D]; nothing is normalised.
        text_features: Their pairs, [n, D].
        scale: 1 / temperature, > 0 (open_clip's scale, which arrives exponentiated); a 0-d tensor
            receives a gradient.
        group: As for `DistributedInfoNCELoss`, and so are mode and gradient, result and errors.
        mode: "gather" | "ring".
        gradient: "ddp" | "sum".

    Returns: The loss over the whole batch, the same on every rank.
    """
    return infonce_across(
        Setting(group, mode, gradient),
        image_features,
        text_features,
        temperature=_inverse(scale),
        symmetric=True,
        labels=None,
        negatives="all",
        stop_gradient=None,
    )


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
        scale: 1 / temperature, > 0; a 0-d tensor receives a gradient.
        bias: Added to every score; a 0-d tensor receives a gradient.
        group: As for `DistributedSigLIPLoss`, and so are mode and gradient, result and errors.
        mode: "gather" | "ring".
        gradient: "ddp" | "sum".

    Returns: The loss over the whole batch, the same on every rank.
    """
    setting = Setting(group, mode, gradient)
    temperature = _inverse(scale)
    return siglip_across(setting, image_features, text_features, temperature=temperature, bias=bias)


def _run(setting: Setting, build: Callable[[], Contrast]) -> Tensor:
    loss: Tensor = _collective_loss(setting, build)
    return loss


# Reading the signatures of other ranks cannot be traced: `torch.compile` runs this eagerly.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _collective_loss(setting: Setting, build: Callable[[], Contrast]) -> Tensor:
    """The loss of the contrast that `build` makes of checked arguments, if all ranks agree."""
    group = group_of(setting.group)
    try:
        setting.check()
        local = build()
    except (TypeError, ValueError):
        if not setting.equal_batches:  # the other ranks wait for this signature
            report_refusal(group)
        raise
    requested = requested_of(local)
    members = equal_members(group, len(local.query))
    if not setting.equal_batches:
        signature = CallSignature(
            rows=len(local.query),
            features=local.query.shape[1],
            dtype=DTYPES.index(local.query.dtype),
            loss=_code(local),
            mode=list(EXCHANGES).index(setting.mode),
            gradient=_SCALES.index(setting.gradient),
            requires_grad=sum(needed << k for k, needed in enumerate(requested)),
        )
        members = agree(group, signature)
    factor = float(members.size if setting.gradient == "ddp" else 1)
    return distributed_loss(Call(local, requested, members, setting.mode, factor))


def _code(local: Contrast) -> int:
    """A number that differs between losses."""
    flags = local.symmetric, local.stopped, local.key is None, local.labels is not None
    return sum(flag << k for k, flag in enumerate(flags)) + (_FORMS.index(local.form) << len(flags))


def _check_pairs(name: str, first: Tensor, other: str, second: Tensor) -> None:
    """Pairs [n, D], n >= 1, in one dtype and on one device.

    Raises:
        TypeError, ValueError: They are not.
    """
    check_features(name, first)
    check_like_query(other, second, first, name)
    if len(second) != len(first):
        raise ValueError(f"{other}: expected the {len(first)} rows of {name}, got {len(second)}")
    if not len(first):
        raise ValueError(f"{name}: expected at least 1 row on every rank, got 0")


def _inverse(scale: float | Tensor) -> float | Tensor:
    """The temperature 1 / scale of open_clip's scale; its own check refuses bad values."""
    if not isinstance(scale, Tensor) and not scale:
        return math.inf
    return 1.0 / scale


def _sendable(labels: Tensor) -> Tensor:
    """Labels in a dtype that every backend can send."""
    return labels.to(torch.float64 if labels.is_floating_point() else torch.int64)


__all__ = [
    "Setting",
    "clip_loss",
    "infonce_across",
    "ntxent_across",
    "siglip_across",
    "siglip_loss",
]

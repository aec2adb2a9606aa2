"""One call of a distributed loss, from checked arguments to an autograd function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mmcl_fast.distributed.exchange import TRIPS
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.sigmoid import sigmoid_pass
from mmcl_fast.distributed.softmax import softmax_gradients, softmax_statistics
from mmcl_fast.losses.contrast import Contrast, Gradients, Wanted

Mode = Literal["gather", "ring"]
GradientScale = Literal["ddp", "sum"]

_NUMBERS = ("temperature", "bias")
_INPUTS = ("query", "key", *_NUMBERS)  # of the autograd function, in this order


@dataclass(frozen=True)
class Call:
    """What is the same for forward and backward.

    Attributes:
        local: The contrast of this rank's rows; its features are those of the forward pass.
        wanted: Gradients that will be asked for.
        members: Everyone.
        mode: A key of `TRIPS`.
        factor: Of the returned gradients, over those of the returned loss.
    """

    local: Contrast
    wanted: Wanted
    members: Members
    mode: Mode
    factor: float

    @property
    def weight(self) -> float:
        """Of one row loss in the loss."""
        return 1.0 / self.members.total


def wanted_of(local: Contrast) -> Wanted:
    """The gradients that autograd will ask for."""
    if not torch.is_grad_enabled():
        return Wanted()
    inputs = {name: getattr(local, name) for name in _INPUTS}
    return Wanted(**{name: x is not None and x.requires_grad for name, x in inputs.items()})


def distributed_loss(call: Call) -> Tensor:
    """The loss over the whole batch, the same on every rank; a collective call."""
    local = call.local
    inputs = local.query, local.key, local.temperature, local.bias
    result: Tensor = _Distributed.apply(call, *inputs)  # type: ignore[no-untyped-call]
    return result


class _Distributed(torch.autograd.Function):
    """Softmax forms keep their statistics for the backward pass; the sigmoid keeps gradients."""

    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: Tensor | None) -> Tensor:
        local = _detached(call.local)
        with torch.autocast(local.query.device.type, enabled=False):
            kept: tuple[Tensor | None, ...]
            arguments = local, call.members, TRIPS[call.mode]
            if local.form == "sigmoid":
                total, kept = sigmoid_pass(*arguments, call.wanted, call.weight)
            else:
                total, kept = softmax_statistics(*arguments)
            loss = call.members.shared_sum(total) * call.weight
        # Inputs too, so that autograd notices if they are changed before the backward pass.
        ctx.save_for_backward(*inputs, *kept)
        ctx.call = replace(call, local=local)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        found = _Once.apply(ctx.call, upstream, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return None, *found


class _Once(torch.autograd.Function):
    """The backward pass, which says so when it is differentiated."""

    @staticmethod
    def forward(ctx: Any, call: Call, upstream: Tensor, *saved: Tensor) -> tuple[Any, ...]:
        inputs, kept = saved[: len(_INPUTS)], saved[len(_INPUTS) :]
        with torch.autocast(call.local.query.device.type, enabled=False):
            if call.local.form == "sigmoid":
                found = Gradients(*kept)
            else:
                arguments = call.local, call.members, TRIPS[call.mode]
                found = softmax_gradients(*arguments, call.wanted, call.weight, kept)
            scale = upstream * call.factor
            return tuple(
                None if gradient is None else (gradient * scale).to(x.dtype)
                for gradient, x in zip(_summed(call, found), inputs, strict=True)
            )

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        raise RuntimeError("distributed losses: expected one differentiation, got a second")


def _detached(contrast: Contrast) -> Contrast:
    features = {name: getattr(contrast, name) for name in _INPUTS}
    return replace(contrast, **{k: x.detach() for k, x in features.items() if x is not None})


def _summed(call: Call, found: Gradients) -> list[Tensor | None]:
    """In the order of `_INPUTS`; numbers of all ranks together, an equal part of them for each."""
    wanted = [name for name in _NUMBERS if getattr(call.wanted, name)]
    parts: dict[str, Tensor | None] = {"query": found.query, "key": found.key}
    if wanted:
        shares = torch.stack([getattr(found, name).sum() for name in wanted])
        whole = call.members.shared_sum(shares) / call.members.size
        parts |= dict(zip(wanted, whole.unbind(), strict=True))
    return [parts.get(name) if getattr(call.wanted, name) else None for name in _INPUTS]


__all__ = ["Call", "GradientScale", "Mode", "distributed_loss", "wanted_of"]

"""The losses outside of tracers and transforms: one node of autograd, and no operation of torch.

An operation (`custom_op.py`) costs the host as much as several launches: arguments are parsed and
checked in every layer of the dispatcher, and results may not share anything. Where nobody looks at
operations, the implementation is called directly.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mmcl_fast.losses.backends import module_of
from mmcl_fast.losses.contrast import Contrast, Forward, Wanted

FIRST_NUMBER = Wanted._fields.index("temperature")  # it and those after it are 0-d
_PLAIN = (Tensor, torch.nn.Parameter)


def is_watched(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a compiler, a transform, forward mode, a dispatch mode or a kind of tensor looks."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    if torch._C._len_torch_dispatch_stack() or forward_ad._current_level >= 0:
        return True
    return any(x is not None and type(x) not in _PLAIN for x in tensors)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Entering autocast, even to turn it off, takes a while: only where it is on."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def evaluated(
    contrast: Contrast, wanted: Wanted, reduction: str, backend: str, *, deferred: bool
) -> tuple[Tensor, Forward]:
    """The loss as asked for, and what the implementation found.

    Args:
        contrast: The problem.
        wanted: Inputs whose gradient is wanted.
        reduction: "mean" | "sum" | "none".
        backend: Name of the implementation.
        deferred: Gradients are left to the backward pass.
    """
    weight = 1.0 / max(1, len(contrast.query)) if reduction == "mean" else 1.0
    with without_autocast(contrast.query.device):
        done = module_of(backend).contrast_forward(contrast, wanted, None if deferred else weight)
    loss = done.losses
    if reduction != "none":
        loss = loss.mean() if reduction == "mean" else loss.sum()
    return loss, done


def eager_loss(contrast: Contrast, wanted: Wanted, reduction: str, backend: str) -> Tensor:
    """The loss of a contrast whose gradients come with it (`_Arguments.deferred` is false)."""
    if not any(wanted):
        with torch.no_grad():
            return evaluated(contrast, wanted, reduction, backend, deferred=False)[0]
    inputs = (getattr(contrast, name) for name in Wanted._fields)
    loss: Tensor = _Loss.apply(contrast, wanted, reduction, backend, *inputs)  # type: ignore[no-untyped-call]
    return loss


class _Loss(torch.autograd.Function):
    """Gradients of the forward pass times the upstream."""

    @staticmethod
    def forward(
        ctx: Any,
        contrast: Contrast,
        wanted: Wanted,
        reduction: str,
        backend: str,
        *inputs: Tensor | None,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        loss, done = evaluated(contrast, wanted, reduction, backend, deferred=False)
        assert done.gradients is not None
        ctx.dtypes = [None if x is None else x.dtype for x in inputs]
        ctx.save_for_backward(*done.gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        results: list[Tensor | None] = [None] * len(ctx.dtypes)
        if upstream is not None:
            for k, (x, dtype) in enumerate(zip(ctx.saved_tensors, ctx.dtypes, strict=True)):
                if x is not None:
                    results[k] = scaled(x, upstream, dtype, add=k >= FIRST_NUMBER)
        if torch.is_grad_enabled():  # a gradient of the gradient may be asked for, and is not there
            results = [None if x is None else _refused(x) for x in results]
        return (None, None, None, None, *results)


class _Refused(torch.autograd.Function):
    """A gradient as it is, until it is differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> NoReturn:
        refuse_twice()


def _refused(gradient: Tensor) -> Tensor:
    found: Tensor = _Refused.apply(gradient.detach().requires_grad_())  # type: ignore[no-untyped-call]
    return found


def refuse_twice() -> NoReturn:
    """For whoever is asked for a second derivative."""
    raise RuntimeError(
        "mmcl_fast losses: expected one differentiation, got a second; "
        "the functions of mmcl_fast.reference can be differentiated again"
    )


def scaled(gradient: Tensor, upstream: Tensor, dtype: torch.dtype, *, add: bool) -> Tensor:
    """`gradient` with its rows, or all of it, times the upstream, in `dtype`.

    Args:
        gradient: Of one input.
        upstream: Of the loss: 0-d, or one for each row.
        dtype: Of the result, which is rounded once.
        add: The gradient is kept per row, so that rows could be weighted, and is to be added up.
    """
    if upstream.dim():
        upstream = upstream.reshape(-1, *(1 for _ in gradient.shape[1:]))
    if add:
        return (gradient * upstream).sum().to(dtype)
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or dtype == gradient.dtype:
        return (gradient * upstream).to(dtype)
    # One pass that rounds what it stores, not a second one over float32.
    return torch.mul(gradient, upstream, out=torch.empty_like(gradient, dtype=dtype))


__all__ = [
    "FIRST_NUMBER",
    "eager_loss",
    "evaluated",
    "is_watched",
    "refuse_twice",
    "scaled",
    "without_autocast",
]

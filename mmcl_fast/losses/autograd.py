"""The losses in eager mode: one node of autograd, and no custom operation.

A custom operation (`custom_op.py`) costs the host as much as several launches: every layer of the
dispatcher parses and checks its arguments, and results may not share memory. Without tracer,
transform or dispatch mode, the implementation is called directly.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mmcl_fast.losses.backends import module_of
from mmcl_fast.losses.contrast import Contrast, Forward, Requested

FIRST_SCALAR = Requested._fields.index("temperature")  # this input and later ones are 0-d
_PLAIN = (Tensor, torch.nn.Parameter)


def needs_custom_op(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a compiler, transform, forward mode, dispatch mode or tensor subclass is active."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    if torch._C._len_torch_dispatch_stack() or forward_ad._current_level >= 0:
        return True
    return any(x is not None and type(x) not in _PLAIN for x in tensors)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context without autocast; entered where it is on only, as entering takes time."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def evaluated(
    contrast: Contrast, requested: Requested, reduction: str, backend: str, *, deferred: bool
) -> tuple[Tensor, Forward]:
    """The reduced loss, and the result of the implementation.

    Args:
        contrast: The problem.
        requested: Inputs whose gradient is needed.
        reduction: "mean" | "sum" | "none".
        backend: Name of the implementation.
        deferred: Gradients are left to the backward pass.
    """
    weight = 1.0 / max(1, len(contrast.query)) if reduction == "mean" else 1.0
    with without_autocast(contrast.query.device):
        result = module_of(backend).contrast_forward(
            contrast, requested, None if deferred else weight
        )
    loss = result.losses
    if reduction != "none":
        loss = loss.mean() if reduction == "mean" else loss.sum()
    return loss, result


def eager_loss(contrast: Contrast, requested: Requested, reduction: str, backend: str) -> Tensor:
    """The loss of a contrast whose gradients come with it (`_Arguments.deferred` is false)."""
    if not any(requested):
        with torch.no_grad():
            return evaluated(contrast, requested, reduction, backend, deferred=False)[0]
    inputs = (getattr(contrast, name) for name in Requested._fields)
    loss: Tensor = _Loss.apply(contrast, requested, reduction, backend, *inputs)  # type: ignore[no-untyped-call]
    return loss


class _Loss(torch.autograd.Function):
    """Gradients from the forward pass, times the upstream gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        contrast: Contrast,
        requested: Requested,
        reduction: str,
        backend: str,
        *inputs: Tensor | None,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        loss, result = evaluated(contrast, requested, reduction, backend, deferred=False)
        assert result.gradients is not None
        ctx.dtypes = [None if x is None else x.dtype for x in inputs]
        ctx.save_for_backward(*result.gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        results: list[Tensor | None] = [None] * len(ctx.dtypes)
        if upstream is not None:
            for k, (x, dtype) in enumerate(zip(ctx.saved_tensors, ctx.dtypes, strict=True)):
                if x is not None:
                    results[k] = scaled(x, upstream, dtype, add=k >= FIRST_SCALAR)
        if torch.is_grad_enabled():  # a second derivative may be requested, and is not implemented
            results = [None if x is None else _refused(x) for x in results]
        return (None, None, None, None, *results)


class _Refused(torch.autograd.Function):
    """The identity on a gradient, which cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> NoReturn:
        refuse_twice()


def _refused(gradient: Tensor) -> Tensor:
    wrapped: Tensor = _Refused.apply(gradient.detach().requires_grad_())  # type: ignore[no-untyped-call]
    return wrapped


def refuse_twice() -> NoReturn:
    """Raises RuntimeError, as second derivatives are not implemented."""
    raise RuntimeError(
        "mmcl_fast losses: expected one differentiation, got a second; "
        "the functions of mmcl_fast.reference can be differentiated again"
    )


def scaled(gradient: Tensor, upstream: Tensor, dtype: torch.dtype, *, add: bool) -> Tensor:
    """`gradient`, or its rows, times the upstream gradient, in `dtype`.

    Args:
        gradient: Of one input.
        upstream: Gradient of the loss: 0-d, or one for each row.
        dtype: Of the result, which is rounded once.
        add: The gradient has one value per row; return the weighted sum.
    """
    if upstream.dim():
        upstream = upstream.reshape(-1, *(1 for _ in gradient.shape[1:]))
    if add:
        return (gradient * upstream).sum().to(dtype)
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or dtype == gradient.dtype:
        return (gradient * upstream).to(dtype)
    # One pass that rounds its result, instead of a second pass over float32.
    return torch.mul(gradient, upstream, out=torch.empty_like(gradient, dtype=dtype))


__all__ = [
    "FIRST_SCALAR",
    "eager_loss",
    "evaluated",
    "needs_custom_op",
    "refuse_twice",
    "scaled",
    "without_autocast",
]

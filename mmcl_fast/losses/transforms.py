"""The losses under compilers, transforms and forward mode, and the choice of the eager way.

A transform differentiates what the operations of `custom_op.py` return: the loss, and its
gradients, whose derivative is the Hessian's product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mmcl_fast.losses.autograd import eager_loss, needs_custom_op, small_loss
from mmcl_fast.losses.contrast import Contrast, Requested, compute_dtype
from mmcl_fast.losses.custom_op import (
    INPUTS,
    TENSORS,
    Arguments,
    contrast_along,
    contrast_backward,
    contrast_forward,
)
from mmcl_fast.losses.double_backward import refuse_third
from mmcl_fast.losses.evaluation import Reduction, Task, stores_scores
from mmcl_fast.losses.rounding import FIRST_SCALAR, scaled


def contrast_loss(contrast: Contrast, reduction: Reduction, backend: str) -> Tensor:
    """The loss of a contrast, differentiable twice.

    Args:
        contrast: The problem, plain or not; arguments are taken as valid.
        reduction: "mean" | "sum" | "none".
        backend: Name of a backend that can run it.

    Returns: A scalar, or [N] if `reduction` is "none", in `Contrast.dtype`.
    """
    eager = not needs_custom_op(contrast)
    if eager and stores_scores(contrast, backend):
        return small_loss(contrast, reduction)
    contrast = contrast.plain()
    task = Task(contrast, _requested(contrast), reduction, backend)
    if eager:
        return eager_loss(task)
    arguments = _distinct(Arguments.of(task))
    results: tuple[Tensor, ...]
    if any(task.requested):
        function = _CompiledLoss if torch.compiler.is_compiling() else _TransformedLoss
        results = function.apply(*arguments)  # type: ignore[no-untyped-call]
    else:  # a compiler cannot trace the function where nothing requires grad
        results = contrast_forward(*arguments)
    return results[0]


def _distinct(arguments: Arguments) -> list[Any]:
    """The arguments with views for repeated tensors, which a compiler refuses."""
    seen: list[Any] = []
    for x in arguments:
        if isinstance(x, Tensor) and any(x is y for y in seen):
            seen.append(x.view_as(x))
        else:
            seen.append(x)
    return seen


_NOTHING = Requested()


def _requested(contrast: Contrast) -> Requested:
    if not torch.is_grad_enabled() and forward_ad._current_level < 0:
        return _NOTHING
    c = contrast
    keys = not c.stopped or c.symmetric
    return Requested(
        _requires_grad(c.query) or _requires_grad(c.second),
        keys and _requires_grad(c.key),
        keys and _requires_grad(c.positive_key),
        keys and _requires_grad(c.hard),
        _requires_grad(c.temperature),
        _requires_grad(c.bias),
    )


def _requires_grad(x: Tensor | None) -> bool:
    if x is None:
        return False
    if x.requires_grad or torch.compiler.is_compiling():  # the rest cannot be traced
        return x.requires_grad
    if forward_ad._current_level >= 0:  # a tangent may be at any level of the transforms
        return True
    # Inside `torch.vmap` a slice has requires_grad False, whatever its tensor has.
    while not x.requires_grad and torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.requires_grad


class _CompiledLoss(torch.autograd.Function):
    """(loss, *gradients, statistics) for a compiler, which refuses second derivatives itself."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = contrast_forward(*arguments)
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *others: Tensor | None) -> tuple[Any, ...]:
        *tensors, statistics = ctx.saved_tensors[: TENSORS + INPUTS + 1]
        results: list[Tensor | None] = [None] * INPUTS
        if upstream is not None:
            known = tensors[TENSORS:]
            if ctx.deferred:
                known = contrast_backward(upstream, statistics, *tensors[:TENSORS], *ctx.options)
            results = _rounded(ctx, known, None if ctx.deferred else upstream)
        return (*results, *_without_gradient())


class _TransformedLoss(_CompiledLoss):
    """The same for transforms and forward mode, where the gradients are differentiable, too."""

    generate_vmap_rule = True

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *others: Tensor | None) -> tuple[Any, ...]:
        *saved, statistics = ctx.saved_tensors
        tensors, known = saved[:TENSORS], saved[TENSORS:]
        results: list[Tensor | None] = [None] * INPUTS
        if upstream is not None:
            if ctx.deferred:
                known = _transformed_gradients(upstream, statistics, *tensors, *ctx.options)
            results = _rounded(ctx, known, None if ctx.deferred else upstream)
        cotangents = _of_requested(ctx, others[:INPUTS])
        if any(x is not None for x in cotangents):
            rows = _row_weights(ctx, tensors[0])
            _, *second = _along_tangents(rows, *cotangents, *tensors, *ctx.options)
            pairs = zip(results, _rounded(ctx, second, None), strict=True)
            results = [y if x is None else x if y is None else x + y for x, y in pairs]
        return (*results, *_without_gradient())

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        *saved, statistics = ctx.saved_tensors
        tensors, known = saved[:TENSORS], saved[TENSORS:]
        rows = _row_weights(ctx, tensors[0])
        losses, *moved = _along_tangents(rows, *tangents[:INPUTS], *tensors, *ctx.options)
        loss = losses
        if ctx.reduction != "none":
            loss = losses.mean() if ctx.reduction == "mean" else losses.sum()
        if ctx.deferred:  # the gradients come later
            moved = [torch.zeros_like(x) for x in known]
        return (loss, *moved, torch.zeros_like(statistics))


class _TransformedGradients(torch.autograd.Function):
    """`contrast_backward`, differentiable in the upstream gradient and the inputs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = contrast_backward(*arguments)
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        upstream, statistics, *arguments = inputs
        _save(ctx, tuple(arguments), (upstream, statistics))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        *tensors, upstream, _ = ctx.saved_tensors
        of_requested = _of_requested(ctx, cotangents)
        losses, *second = _along_tangents(upstream, *of_requested, *tensors, *ctx.options)
        results = _rounded(ctx, second, None)
        return (losses.to(upstream.dtype), None, *results, *_without_gradient())

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        *tensors, upstream, statistics = ctx.saved_tensors
        of_upstream, _, *of_inputs = tangents
        _, *moved = _along_tangents(upstream, *of_inputs[:INPUTS], *tensors, *ctx.options)
        if of_upstream is not None:
            linear = contrast_backward(of_upstream, statistics, *tensors, *ctx.options)
            moved = [x + y for x, y in zip(moved, linear, strict=True)]
        return tuple(moved)


class _Along(torch.autograd.Function):
    """`contrast_along` as an operation that refuses to be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = contrast_along(*arguments)
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        refuse_third()

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Any, ...]:
        refuse_third()


# Torch's `apply` has no types.
_along_tangents: Any = _Along.apply
_transformed_gradients: Any = _TransformedGradients.apply


def _save(ctx: Any, inputs: tuple[Any, ...], further: tuple[Tensor, ...]) -> None:
    """Keep the arguments of a loss, and further tensors, for its derivatives."""
    given = Arguments(*inputs)
    task = given.task()
    ctx.set_materialize_grads(False)
    ctx.options = inputs[TENSORS:]
    ctx.requested = task.requested
    ctx.deferred, ctx.weight, ctx.reduction = task.deferred, task.weight, task.reduction
    ctx.dtypes = [None if x is None else x.dtype for x in task.inputs]
    if len(further) > 2:
        further = further[1:]  # of a loss's results, without the loss
    ctx.save_for_backward(*inputs[:TENSORS], *further)
    ctx.save_for_forward(*inputs[:TENSORS], *further)


def _rounded(ctx: Any, known: Any, upstream: Tensor | None) -> list[Tensor | None]:
    """Gradients in the dtypes of their inputs, times the upstream gradient if given."""
    results: list[Tensor | None] = [None] * INPUTS
    for k, (x, needed, dtype) in enumerate(zip(known, ctx.requested, ctx.dtypes, strict=True)):
        if not needed or dtype is None:
            continue
        if upstream is None:
            results[k] = (x.sum() if k >= FIRST_SCALAR else x).to(dtype)
        else:
            results[k] = scaled(x, upstream, dtype, add=k >= FIRST_SCALAR)
    return results


def _of_requested(ctx: Any, gradients: Any) -> list[Tensor | None]:
    return [x if needed else None for x, needed in zip(gradients, ctx.requested, strict=True)]


def _row_weights(ctx: Any, query: Tensor) -> Tensor:
    """The weight of each row's loss, [N]."""
    return torch.full(query.shape[:1], ctx.weight, dtype=compute_dtype(query), device=query.device)


def _without_gradient() -> tuple[None, ...]:
    return (None,) * (len(Arguments._fields) - INPUTS)


__all__ = ["contrast_loss"]

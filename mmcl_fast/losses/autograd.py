"""The losses in eager mode: one node of autograd, and no custom operation.

A custom operation (`custom_op.py`) costs the host as much as several launches: every layer of the
dispatcher parses and checks its arguments, and results may not share memory. Without tracer,
transform or dispatch mode, the implementation is called directly.

Every loss can be differentiated twice, at first in reverse mode. A third derivative is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from mmcl_fast.losses.contrast import Contrast, Gradients, Requested
from mmcl_fast.losses.evaluation import (
    Task,
    evaluated,
    stores_scores,
    weighted_gradients,
    without_autocast,
)
from mmcl_fast.losses.second_derivatives import Tangents, directional_derivatives
from mmcl_fast.losses.torch_backend.dense import DenseContrast

FIRST_SCALAR = Requested._fields.index("temperature")  # this input and later ones are 0-d


def needs_custom_op(contrast: Contrast) -> bool:
    """Whether a compiler, transform, forward mode, dispatch mode or tensor subclass is active.

    Meta tensors, too, take the operation, which knows the shapes of its results.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    if torch._C._len_torch_dispatch_stack() or forward_ad._current_level >= 0:
        return True
    c = contrast
    if c.query.is_meta:
        return True
    tensors = c.query, c.key, c.temperature, c.positive_key, c.hard, c.bias, c.positive
    pairs = () if c.pairwise is None else c.pairwise.given()
    for x in (*tensors, c.hard_counts, *(c.labels or ()), *pairs):
        if x is not None and type(x) is not Tensor and type(x) is not Parameter:
            return True
    return False


def eager_loss(task: Task) -> Tensor:
    """The loss without a custom operation."""
    stored = stores_scores(task.contrast, task.backend)
    if any(task.requested):
        function = _DenseLoss if stored else _Loss
        loss: Tensor = function.apply(task, *task.inputs)  # type: ignore[no-untyped-call]
        return loss
    if stored:
        with without_autocast(task.contrast.query.device):
            return DenseContrast.of(task.contrast, task.weight_of_sum)[0]
    with torch.no_grad():
        return evaluated(task).loss


class _DenseLoss(torch.autograd.Function):
    """Gradients from the stored scores, in the backward pass."""

    @staticmethod
    def forward(ctx: Any, task: Task, *inputs: Tensor | None) -> Tensor:
        ctx.set_materialize_grads(False)
        with without_autocast(task.contrast.query.device):
            loss, ctx.stored = DenseContrast.of(task.contrast, task.weight_of_sum)
        ctx.task = task
        ctx.save_for_backward(*inputs)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, task = ctx.saved_tensors, ctx.task  # saved, so that changes in place are noticed
        if upstream is None:
            return (None,) * (1 + len(inputs))
        if not torch.is_grad_enabled():
            return None, *_stored_gradients(task, ctx.stored, upstream)
        gradients = partial(_stored_gradients, task, ctx.stored)
        return None, *differentiable(task, gradients, upstream, inputs)


def _stored_gradients(
    task: Task, stored: DenseContrast, upstream: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of the inputs from stored scores."""
    with without_autocast(upstream.device):
        if task.deferred:
            rows = upstream.detach().float().contiguous()
            return rounded(stored.gradients(task.requested, rows), None, task.inputs)
        weight: float | Tensor = task.weight
        if task.reduction == "none":
            weight = stored.query.new_full(stored.query.shape[:1], task.weight)
        result = stored.gradients(task.requested, weight)
        # Scores are stored on a CPU only, where the value costs nothing to read.
        one = not upstream.dim() and upstream.item() == 1.0
        return rounded(result, None if one else upstream, task.inputs)


class _Loss(torch.autograd.Function):
    """Gradients from the forward pass times the upstream gradient, or deferred ones."""

    @staticmethod
    def forward(ctx: Any, task: Task, *inputs: Tensor | None) -> Tensor:
        ctx.set_materialize_grads(False)
        result = evaluated(task)
        ctx.task, ctx.deferred = task, result.gradients is None
        kept = result.statistics if result.gradients is None else result.gradients
        ctx.save_for_backward(*inputs, *kept)
        return result.loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, count = ctx.saved_tensors, len(Requested._fields)
        inputs, kept = saved[:count], saved[count:]
        if upstream is None:
            return (None,) * (1 + count)
        if ctx.deferred:
            first = partial(_deferred_gradients, ctx.task, kept, inputs=inputs)
        else:
            first = partial(rounded, Gradients(*kept), inputs=inputs)
        if not torch.is_grad_enabled():
            return None, *first(upstream)
        return None, *differentiable(ctx.task, first, upstream, inputs)


def _deferred_gradients(
    task: Task,
    statistics: tuple[Tensor, ...],
    upstream: Tensor,
    inputs: tuple[Tensor | None, ...],
) -> tuple[Tensor | None, ...]:
    result = weighted_gradients(
        task.contrast, task.requested, statistics, upstream.detach(), task.backend
    )
    return rounded(result, None, inputs)


def rounded(
    gradients: Gradients, upstream: Tensor | None, inputs: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of the inputs in their dtypes, times the upstream gradient if it is given."""
    results: list[Tensor | None] = list(gradients)
    for k, gradient in enumerate(gradients):
        if gradient is None:
            continue
        x = inputs[k]
        assert x is not None
        if upstream is not None:
            results[k] = scaled(gradient, upstream, x.dtype, add=k >= FIRST_SCALAR)
            continue
        if k >= FIRST_SCALAR and gradient.dim():
            gradient = gradient.sum()
        results[k] = gradient if gradient.dtype == x.dtype else gradient.to(x.dtype)
    return tuple(results)


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


First = Callable[[Tensor], tuple[Tensor | None, ...]]


def differentiable(
    task: Task, gradients: First, upstream: Tensor, inputs: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of the inputs that can be differentiated.

    Args:
        task: The loss.
        gradients: From the upstream gradient to the gradients of the inputs.
        upstream: Of the loss.
        inputs: Those of the task.
    """
    results: tuple[Tensor | None, ...] = _Gradients.apply(task, gradients, upstream, *inputs)  # type: ignore[no-untyped-call]
    return results


class _Gradients(torch.autograd.Function):
    """The gradients as a function of the upstream gradient and the inputs."""

    @staticmethod
    def forward(
        ctx: Any, task: Task, gradients: First, upstream: Tensor, *inputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.task = task
        ctx.save_for_backward(upstream, *inputs)
        return gradients(upstream)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        upstream, *inputs = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return None, None, *_along(ctx.task, upstream, cotangents, tuple(inputs))
        fixed = (None if x is None else _fixed(x) for x in (upstream, *inputs))
        return None, None, *_second_derivatives(ctx.task, *cotangents, *fixed)


class _SecondDerivatives(torch.autograd.Function):
    """The Hessian's product with cotangents, linear in them; it has no other derivative."""

    @staticmethod
    def forward(ctx: Any, task: Task, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        count = len(Requested._fields)
        cotangents, (upstream, *inputs) = tensors[:count], tensors[count:]
        assert upstream is not None
        ctx.task = task
        ctx.save_for_backward(upstream, *inputs)
        return tuple(_along(task, upstream, cotangents, tuple(inputs)))

    @staticmethod
    def backward(
        ctx: Any, of_upstream: Tensor | None, *of_inputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        upstream, *inputs = ctx.saved_tensors
        task: Task = ctx.task
        # The product is symmetric: its adjoint is itself.
        _, *results = _along(task, upstream, of_inputs, tuple(inputs))
        if of_upstream is not None:
            further = _of_rows(task, _row_weights(task, of_upstream), tuple(inputs))
            pairs = zip(results, further, strict=True)
            results = [y if x is None else x if y is None else x + y for x, y in pairs]
        third = (None if x is None else torch.zeros_like(x) for x in (upstream, *inputs))
        return None, *results, *third


class _Fixed(torch.autograd.Function):
    """The identity on an input in which a second derivative cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> NoReturn:
        refuse_third()


# Torch's `apply` has no types.
_fixed: Any = _Fixed.apply
_second_derivatives: Any = _SecondDerivatives.apply


def _along(
    task: Task,
    upstream: Tensor,
    cotangents: tuple[Tensor | None, ...],
    inputs: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """Derivatives of the gradients' products with cotangents, in the upstream and the inputs."""
    with torch.no_grad(), without_autocast(upstream.device):
        rows = _row_weights(task, upstream)
        # The Hessian is symmetric: its products with cotangents are those with tangents.
        losses, gradients = directional_derivatives(task.contrast, rows, Tangents(*cotangents))
        pairs = zip(gradients, task.requested, strict=True)
        kept = Gradients(*(x if needed else None for x, needed in pairs))
        return [task.reduced(losses).to(upstream.dtype), *rounded(kept, None, inputs)]


def _of_rows(
    task: Task, weights: Tensor, inputs: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of sum_i weights_i loss_i."""
    task = task._replace(reduction="none")
    with torch.no_grad():
        result = evaluated(task)
        if result.gradients is None:
            return _deferred_gradients(task, result.statistics, weights, inputs)
        return rounded(result.gradients, weights, inputs)


def _row_weights(task: Task, upstream: Tensor) -> Tensor:
    """The weight of each row's loss, [N], by the gradient of the reduced loss."""
    rows = upstream.detach() * task.weight
    return rows if rows.dim() else rows.expand(task.contrast.query.shape[0])


def refuse_third() -> NoReturn:
    """Raises RuntimeError: third derivatives, and two forward modes, are not implemented."""
    raise RuntimeError(
        "mmcl_fast losses: expected at most two differentiations, the inner one in reverse mode "
        "(as torch.func.hessian has it), got another; the functions of mmcl_fast.reference can be "
        "differentiated in any way"
    )


__all__ = [
    "FIRST_SCALAR",
    "differentiable",
    "eager_loss",
    "needs_custom_op",
    "refuse_third",
    "rounded",
    "scaled",
]

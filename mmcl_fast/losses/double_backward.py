"""Gradients in eager mode, as a node of autograd: they can be differentiated once more.

Every loss can be differentiated twice, at first in reverse mode. A third derivative is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from mmcl_fast.losses.batched_upstream import (
    any_batched,
    batched_derivatives,
    batched_gradients,
    refuse_graph,
)
from mmcl_fast.losses.contrast import Gradients, Requested
from mmcl_fast.losses.evaluation import Task, evaluated, weighted_gradients, without_autocast
from mmcl_fast.losses.rounding import is_batched, rounded
from mmcl_fast.losses.second_derivatives import Tangents, directional_derivatives

First = Callable[[Tensor], tuple[Tensor | None, ...]]


def deferred_gradients(
    task: Task,
    statistics: tuple[Tensor, ...],
    upstream: Tensor,
    inputs: tuple[Tensor | None, ...],
) -> tuple[Tensor | None, ...]:
    """Gradients of the inputs where they wait for the upstream gradient (`Task.deferred`).

    Args:
        task: The loss, with a plain contrast.
        statistics: Those of `evaluated`.
        upstream: [N], or several of them.
        inputs: Those of the task.
    """
    if is_batched(upstream):
        return rounded(batched_gradients(task, statistics, upstream), None, inputs)
    result = weighted_gradients(
        task.contrast, task.requested, statistics, upstream.detach(), task.backend
    )
    return rounded(result, None, inputs)


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
    if is_batched(upstream):
        refuse_graph()
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
        ctx.save_for_backward(upstream, *inputs, *task.constants)
        return gradients(upstream)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        upstream, *inputs = ctx.saved_tensors[: 1 + len(Requested._fields)]
        if not torch.is_grad_enabled():
            return None, None, *_along(ctx.task, upstream, cotangents, tuple(inputs))
        if any_batched(cotangents):
            refuse_graph()
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
        if any_batched(cotangents):
            losses, gradients = batched_derivatives(task, rows, cotangents)
        else:
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
            return deferred_gradients(task, result.statistics, weights, inputs)
        return rounded(result.gradients, weights, inputs)


def _row_weights(task: Task, upstream: Tensor) -> Tensor:
    """The weight of each row's loss, [N], by the gradient of the reduced loss."""
    with torch.no_grad():  # a batched tensor cannot be detached
        rows = upstream * task.weight
    return rows if rows.dim() else rows.expand(task.contrast.query.shape[0])


def refuse_third() -> NoReturn:
    """Raises RuntimeError: third derivatives, and two forward modes, are not implemented."""
    raise RuntimeError(
        "mmcl_fast losses: expected at most two differentiations, the inner one in reverse mode "
        "(as torch.func.hessian has it), got another; the functions of mmcl_fast.reference can be "
        "differentiated in any way"
    )


__all__ = ["deferred_gradients", "differentiable", "refuse_third"]

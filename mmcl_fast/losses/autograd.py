"""The losses in eager mode: one node of autograd, and no custom operation.

A custom operation (`custom_op.py`) costs the host as much as several launches: every layer of the
dispatcher parses and checks its arguments, and results may not share memory. Without tracer,
transform or dispatch mode, the implementation is called directly.

Derivatives of the gradients are in `double_backward.py`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from mmcl_fast.losses.batched_upstream import refuse_graph
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested
from mmcl_fast.losses.double_backward import deferred_gradients, differentiable
from mmcl_fast.losses.evaluation import Reduction, Task, evaluated, without_autocast
from mmcl_fast.losses.rounding import is_batched, rounded
from mmcl_fast.losses.torch_backend.dense import DenseContrast

_NOTHING = Requested()


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
    tensors = c.query, c.key, c.temperature, c.positive_key, c.hard, c.bias, c.positive, c.second
    pairs = () if c.pairwise is None else c.pairwise.given()
    for x in (*tensors, c.hard_counts, *(c.labels or ()), *pairs):
        if x is not None and type(x) is not Tensor and type(x) is not Parameter:
            return True
    return False


def small_loss(contrast: Contrast, reduction: Reduction) -> Tensor:
    """The loss of stored scores, without a custom operation.

    Args:
        contrast: One whose scores are to be stored; it need not be plain.
        reduction: "mean" | "sum" | "none".
    """
    c = contrast
    requested = _NOTHING
    if torch.is_grad_enabled():
        keys = not c.stopped or c.symmetric
        requested = Requested(
            c.query.requires_grad or (c.second is not None and c.second.requires_grad),
            keys and c.key is not None and c.key.requires_grad,
            keys and c.positive_key is not None and c.positive_key.requires_grad,
            keys and c.hard is not None and c.hard.requires_grad,
            c.temperature.requires_grad,
            c.bias is not None and c.bias.requires_grad,
        )
    task = Task(contrast, requested, reduction, "torch")
    if any(requested):
        loss: Tensor = _DenseLoss.apply(task, *task.inputs, c.second)  # type: ignore[no-untyped-call]
        return loss
    if torch.is_grad_enabled():
        with torch.no_grad():
            return _stored(task)[0]
    return _stored(task)[0]


def _stored(task: Task) -> tuple[Tensor, DenseContrast]:
    # A context manager is entered where it changes something only, as entering takes time.
    if torch._C._is_any_autocast_enabled():
        with without_autocast(task.contrast.query.device):
            return DenseContrast.of(task.contrast, task.weight_of_sum)
    return DenseContrast.of(task.contrast, task.weight_of_sum)


def eager_loss(task: Task) -> Tensor:
    """The loss of a plain contrast without a custom operation."""
    if any(task.requested):
        loss: Tensor = _Loss.apply(task, *task.inputs)  # type: ignore[no-untyped-call]
        return loss
    with torch.no_grad():
        return evaluated(task).loss


class _DenseLoss(torch.autograd.Function):
    """Gradients from the stored scores, in the backward pass."""

    @staticmethod
    def forward(ctx: Any, task: Task, *inputs: Tensor | None) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.task = task
        loss, ctx.stored = _stored(task)
        ctx.save_for_backward(*inputs, *task.constants)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # saved, so that changes in place are noticed
        task, stored = ctx.task, ctx.stored
        if frees_graph():
            ctx.task = ctx.stored = None
        count = len(Requested._fields)
        if upstream is None:
            return (None,) * (2 + count)
        inputs, second = saved[:count], saved[count]
        batched = task.deferred and is_batched(upstream)  # which native code cannot read
        if not torch.is_grad_enabled() and not batched:
            gradients = _stored_gradients(task, stored, upstream)
        elif not task.contrast.is_plain:
            return None, *_recomputed(task, upstream, saved[: count + 1])
        elif torch.is_grad_enabled():
            first = partial(_stored_gradients, task, stored)
            gradients = differentiable(task, first, upstream, inputs)
        else:
            gradients = deferred_gradients(task, (), upstream, inputs)
        if second is None:
            return None, *gradients, None
        query, *others = gradients
        if query is None:
            return None, None, *others, None
        return None, query[: -len(second)], *others, query[-len(second) :]


def frees_graph() -> bool:
    """Whether the running backward pass frees what autograd saved.

    What a node keeps beside would live as long as the loss, which may be a sum over many steps.
    Torch has no public name for it: `tests/contracts/test_private_torch.py` says when it changes.
    """
    if torch.compiler.is_compiling():  # compiled autograd
        return False
    return not torch._C._autograd._get_current_graph_task_keep_graph()


def _stored_gradients(
    task: Task, stored: DenseContrast, upstream: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of the inputs from stored scores."""
    if torch._C._is_any_autocast_enabled():
        with without_autocast(upstream.device):
            return _stored_gradients(task, stored, upstream)
    if task.deferred:
        rows = upstream.detach().float().contiguous()
        return rounded(stored.gradients(task.requested, rows), None, task.inputs)
    weight: float | Tensor = task.weight
    if task.reduction == "none":
        weight = stored.query.new_full(stored.query.shape[:1], task.weight)
    result = stored.gradients(task.requested, weight)
    # Scores are stored on a CPU only, where a value costs nothing to read.
    one = not upstream.dim() and not is_batched(upstream) and upstream.item() == 1.0
    return rounded(result, None if one else upstream, task.inputs)


def _recomputed(
    task: Task, upstream: Tensor, saved: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients by the plain contrast of the saved inputs.

    They can be differentiated where autograd records the backward pass.
    """
    recorded = torch.is_grad_enabled()
    if recorded and is_batched(upstream):
        refuse_graph()
    with torch.enable_grad():
        # Views: one tensor may be two inputs, each with a gradient of its own.
        inputs = tuple(None if x is None else x.view_as(x) for x in saved)
        query, key, positive_key, hard, temperature, bias, second = inputs
        assert query is not None
        assert temperature is not None
        contrast = replace(
            task.contrast, query=query, key=key, positive_key=positive_key, hard=hard,
            temperature=temperature, bias=bias, second=second,
        ).plain()  # fmt: skip
    if recorded:
        outputs, vectors = [small_loss(contrast, task.reduction)], [upstream]
    else:  # no node of autograd: a batched tensor of `torch.vmap` takes none
        plain = task._replace(contrast=contrast)
        gradients = deferred_gradients(plain, (), upstream, plain.inputs)
        pairs = zip(plain.inputs, gradients, strict=True)
        known = [(x, g) for x, g in pairs if x is not None and g is not None]
        outputs, vectors = [x for x, _ in known], [g for _, g in known]
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    found = iter(
        torch.autograd.grad(outputs, wanted, vectors, create_graph=recorded, allow_unused=True)
    )
    return tuple(None if x is None or not x.requires_grad else next(found) for x in inputs)


class _Loss(torch.autograd.Function):
    """Gradients from the forward pass times the upstream gradient, or deferred ones."""

    @staticmethod
    def forward(ctx: Any, task: Task, *inputs: Tensor | None) -> Tensor:
        ctx.set_materialize_grads(False)
        result = evaluated(task)
        ctx.task, ctx.deferred = task, result.gradients is None
        kept = result.statistics if result.gradients is None else result.gradients
        ctx.kept = len(kept)
        ctx.save_for_backward(*inputs, *kept, *task.constants)
        return result.loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, count, task = ctx.saved_tensors, len(Requested._fields), ctx.task
        if frees_graph():
            ctx.task = None
        inputs, kept = saved[:count], saved[count : count + ctx.kept]
        if upstream is None:
            return (None,) * (1 + count)
        if ctx.deferred:
            first = partial(deferred_gradients, task, kept, inputs=inputs)
        else:
            first = partial(rounded, Gradients(*kept), inputs=inputs)
        if not torch.is_grad_enabled():
            return None, *first(upstream)
        return None, *differentiable(task, first, upstream, inputs)


__all__ = ["eager_loss", "frees_graph", "needs_custom_op", "small_loss"]

"""The losses as operations of torch: `mmcl_fast::contrast` and its derivatives.

They are opaque to `torch.compile`, which knows the shapes of their results. The requested gradients
are an argument, as an operation cannot ask whether its inputs require grad: the forward pass
computes them where it can, and others cost nothing.

`mmcl_fast::contrast_along` is the derivative of the losses and of their gradients along tangents:
the Hessian's product, which serves forward mode and the second of two reverse modes.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast, get_type_hints

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Contrast, Form, Gradients, Requested
from mmcl_fast.losses.evaluation import (
    Reduction,
    Task,
    evaluated,
    weighted_gradients,
    without_autocast,
)
from mmcl_fast.losses.pairwise import Pairwise
from mmcl_fast.losses.rounding import FIRST_SCALAR
from mmcl_fast.losses.second_derivatives import Tangents, directional_derivatives


class Arguments(NamedTuple):
    """A contrast, reduction and backend as the flat arguments of a custom operation."""

    query: Tensor
    key: Tensor | None
    positive_key: Tensor | None
    hard: Tensor | None
    temperature: Tensor
    bias: Tensor | None
    positive: Tensor | None
    labels: Tensor | None
    key_labels: Tensor | None
    hard_counts: Tensor | None
    targets: Tensor | None
    excluded: Tensor | None
    form: str
    symmetric: bool
    stopped: bool
    exclude_self: bool
    extra: int
    supervised: bool
    smoothing: float
    reduction: str
    backend: str
    requested: str  # 1 or 0 for each field of `Requested`, the first six arguments

    @classmethod
    def of(cls, task: Task) -> Arguments:
        """The arguments of a task."""
        contrast = task.contrast
        shared = {name: getattr(contrast, name) for name in cls._fields if hasattr(contrast, name)}
        labels, key_labels = contrast.labels or (None, None)
        shared |= {"labels": labels, "key_labels": key_labels}
        pairwise = contrast.pairwise or Pairwise()
        shared["targets"], shared["excluded"] = pairwise.tensors()
        return cls(
            **shared,
            reduction=task.reduction,
            backend=task.backend,
            requested="".join("1" if needed else "0" for needed in task.requested),
        )

    def task(self) -> Task:
        """The task of these arguments."""
        labels = None
        if self.labels is not None and self.key_labels is not None:
            labels = self.labels, self.key_labels
        pairwise = None
        if self.targets is not None or self.excluded is not None:
            pairwise = Pairwise(self.targets, self.excluded)
        contrast = Contrast(
            query=self.query,
            key=self.key,
            temperature=self.temperature,
            bias=self.bias,
            positive=self.positive,
            positive_key=self.positive_key,
            hard=self.hard,
            hard_counts=self.hard_counts,
            labels=labels,
            form=cast(Form, self.form),
            symmetric=self.symmetric,
            stopped=self.stopped,
            exclude_self=self.exclude_self,
            extra=self.extra,
            supervised=self.supervised,
            smoothing=self.smoothing,
            pairwise=pairwise,
        )
        requested = Requested(*(flag == "1" for flag in self.requested))
        return Task(contrast, requested, cast(Reduction, self.reduction), self.backend)


# Types of a torch operation's schema by those of `Arguments`.
_KINDS = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    str: "str",
    bool: "bool",
    int: "SymInt",
    float: "float",
}
_SIGNATURE = ", ".join(f"{_KINDS[kind]} {name}" for name, kind in get_type_hints(Arguments).items())
TENSORS = Arguments._fields.index("form")  # the arguments before are tensors
INPUTS = len(Requested._fields)  # of which the first are differentiable
_TANGENTS = ", ".join(f"Tensor? {name}_tangent" for name in Requested._fields)
_RESULTS = ", ".join(["Tensor"] * INPUTS)


@torch.library.custom_op(
    "mmcl_fast::contrast",
    mutates_args=(),
    schema=f"({_SIGNATURE}) -> (Tensor, {_RESULTS}, Tensor)",
)
def contrast_forward(*arguments: Any) -> tuple[Tensor, ...]:
    """(loss, *gradients, statistics): gradients as in `Gradients`, or statistics; else empty."""
    task = Arguments(*arguments).task()
    result = evaluated(task)
    loss = result.loss
    statistics = loss.new_empty(0)
    if task.deferred:
        statistics = loss.new_zeros(_statistics_shape(task))
        if result.statistics:  # none of stored scores, which are computed again
            torch.stack(result.statistics, out=statistics)
    return (loss, *_filled(result.gradients or Gradients(), loss), statistics)


@contrast_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    task = Arguments(*arguments).task()
    like = task.contrast.query.new_empty((), dtype=task.contrast.dtype)
    loss = like.new_empty(task.contrast.query.shape[0]) if task.reduction == "none" else like
    statistics = like.new_empty(_statistics_shape(task) if task.deferred else 0)
    requested = Requested() if task.deferred else task.requested
    return (loss, *_shaped(task, requested, like), statistics)


def _statistics_shape(task: Task) -> tuple[int, int]:
    return (6 if task.contrast.symmetric else 3), task.contrast.query.shape[0]


@torch.library.custom_op(
    "mmcl_fast::contrast_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, Tensor statistics, {_SIGNATURE}) -> ({_RESULTS})",
)
def contrast_backward(upstream: Tensor, statistics: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of sum_i upstream_i loss_i, as in `Gradients`; empty where there are none."""
    task = Arguments(*arguments).task()
    result = weighted_gradients(
        task.contrast, task.requested, statistics.unbind(), upstream, task.backend
    )
    return _filled(result, statistics)


@contrast_backward.register_fake
def _(upstream: Tensor, statistics: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    task = Arguments(*arguments).task()
    return _shaped(task, task.requested, statistics)


@torch.library.custom_op(
    "mmcl_fast::contrast_along",
    mutates_args=(),
    schema=f"(Tensor upstream, {_TANGENTS}, {_SIGNATURE}) -> (Tensor, {_RESULTS})",
)
def contrast_along(upstream: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Derivatives along the tangents of the row losses and of the gradients; see `Tangents`."""
    task = Arguments(*arguments[INPUTS:]).task()
    with without_autocast(upstream.device):
        losses, result = directional_derivatives(
            task.contrast, upstream, Tangents(*arguments[:INPUTS])
        )
    kept = (x if needed else None for x, needed in zip(result, task.requested, strict=True))
    return losses, *_filled(Gradients(*kept), losses)


@contrast_along.register_fake
def _(upstream: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    task = Arguments(*arguments[INPUTS:]).task()
    losses = task.contrast.query.new_empty(task.contrast.query.shape[:1], dtype=task.contrast.dtype)
    return losses, *_shaped(task, task.requested, losses)


def _filled(results: Gradients, like: Tensor) -> tuple[Tensor, ...]:
    """Gradients with empty tensors for None, as an operation must return tensors."""
    return tuple(like.new_empty(0) if x is None else x for x in results)


def _shaped(task: Task, requested: Requested, like: Tensor) -> tuple[Tensor, ...]:
    """Empty tensors in the shapes of `Gradients`; those of temperature and bias are per row."""
    rows = task.contrast.query.shape[:1]
    return tuple(
        like.new_empty(0 if not needed or x is None else x.shape if k < FIRST_SCALAR else rows)
        for k, (x, needed) in enumerate(zip(task.inputs, requested, strict=True))
    )


def _vmap_rule(operation: Any) -> Any:
    """The vmap rule of an operation: one call per slice."""

    def rule(info: Any, in_dims: Any, *arguments: Any) -> Any:
        results = [
            operation(
                *(
                    x if dim is None or not isinstance(x, Tensor) else x.select(dim, k)
                    for x, dim in zip(arguments, in_dims, strict=True)
                )
            )
            for k in range(info.batch_size)
        ]
        stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
        return stacked, (0,) * len(stacked)

    return rule


for _operation in (contrast_forward, contrast_backward, contrast_along):
    _operation.register_vmap(_vmap_rule(_operation))


__all__ = [
    "INPUTS",
    "TENSORS",
    "Arguments",
    "contrast_along",
    "contrast_backward",
    "contrast_forward",
]

"""The losses as operations of torch: `mmcl_fast::contrast` and its backward pass.

Both are opaque to `torch.compile`, which knows the shapes of their results. The requested gradients
are an argument, as an operation cannot ask whether its inputs require grad: the forward pass
computes them where it can, and others cost nothing.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast, get_type_hints

import torch
from torch import Tensor

from mmcl_fast.losses.autograd import (
    FIRST_SCALAR,
    eager_loss,
    evaluated,
    needs_custom_op,
    refuse_twice,
    scaled,
    without_autocast,
)
from mmcl_fast.losses.backends import module_of
from mmcl_fast.losses.contrast import Contrast, Form, Gradients, Requested

Reduction = Literal["none", "mean", "sum"]


class _Arguments(NamedTuple):
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
    form: str
    symmetric: bool
    stopped: bool
    exclude_self: bool
    extra: int
    reduction: str
    backend: str
    requested: list[int]  # as in `Requested`, whose fields are the first six arguments

    @classmethod
    def of(
        cls, contrast: Contrast, requests: Requested, reduction: str, backend: str
    ) -> _Arguments:
        shared = {name: getattr(contrast, name) for name in cls._fields if hasattr(contrast, name)}
        labels, key_labels = contrast.labels or (None, None)
        requested = [int(w) for w in requests]
        shared |= {"labels": labels, "key_labels": key_labels}
        return cls(**shared, reduction=reduction, backend=backend, requested=requested)

    def contrast(self) -> Contrast:
        labels = None
        if self.labels is not None and self.key_labels is not None:
            labels = self.labels, self.key_labels
        return Contrast(
            query=self.query,
            key=self.key,
            temperature=self.temperature,
            bias=self.bias,
            positive=self.positive,
            positive_key=self.positive_key,
            hard=self.hard,
            labels=labels,
            form=cast(Form, self.form),
            symmetric=self.symmetric,
            stopped=self.stopped,
            exclude_self=self.exclude_self,
            extra=self.extra,
        )

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """The differentiable inputs, in the order of `Requested`."""
        return (
            self.query, self.key, self.positive_key, self.hard, self.temperature, self.bias
        )  # fmt: skip

    @property
    def requests(self) -> Requested:
        return Requested(*map(bool, self.requested))

    @property
    def deferred(self) -> bool:
        """Whether gradients of several rows depend on one upstream value: computed in backward."""
        return _is_deferred(self, self.requests, self.reduction)


# Types of a torch operation's schema by those of `_Arguments`.
_KINDS = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    str: "str",
    bool: "bool",
    int: "SymInt",
    list[int]: "SymInt[]",
}
_SIGNATURE = ", ".join(
    f"{_KINDS[kind]} {name}" for name, kind in get_type_hints(_Arguments).items()
)


def contrast_loss(contrast: Contrast, reduction: Reduction, backend: str) -> Tensor:
    """The loss of a contrast, differentiable once.

    Args:
        contrast: The problem; arguments are taken as valid.
        reduction: "mean" | "sum" | "none".
        backend: Name of a backend that can run it.

    Returns: A scalar, or [N] if `reduction` is "none", in `Contrast.dtype`.
    """
    requested = _requested(contrast)
    if not (needs_custom_op(_tensors(contrast)) or _is_deferred(contrast, requested, reduction)):
        return eager_loss(contrast, requested, reduction, backend)
    arguments = _Arguments.of(contrast, requested, reduction, backend)
    results: tuple[Tensor, ...] = _ContrastFunction.apply(*_distinct(arguments))  # type: ignore[no-untyped-call]
    return results[0]


def _is_deferred(contrast: Contrast | _Arguments, requested: Requested, reduction: str) -> bool:
    two_sided = contrast.symmetric or contrast.key is None or requested.key
    return reduction == "none" and not contrast.stopped and two_sided and any(requested)


def _tensors(contrast: Contrast) -> tuple[Tensor | None, ...]:
    further = contrast.labels or (None, None)
    inputs = (getattr(contrast, name) for name in Requested._fields)
    return (*inputs, contrast.positive, *further)


def _distinct(arguments: _Arguments) -> list[Any]:
    """The arguments with views for repeated tensors, which a compiler refuses."""
    seen: list[Any] = []
    for x in arguments:
        if isinstance(x, Tensor) and any(x is y for y in seen):
            seen.append(x.view_as(x))
        else:
            seen.append(x)
    return seen


def _requested(contrast: Contrast) -> Requested:
    if not torch.is_grad_enabled():
        return Requested()
    inputs = (getattr(contrast, name) for name in Requested._fields)
    requested = Requested(*(x is not None and _requires_grad(x) for x in inputs))
    if contrast.stopped and not contrast.symmetric:
        requested = requested._replace(key=False, positive_key=False, hard=False)
    return requested


def _requires_grad(x: Tensor) -> bool:
    if torch.compiler.is_compiling():  # neither the code below nor vmap of this can be traced
        return x.requires_grad
    # Inside `torch.vmap` a slice has requires_grad False, whatever its tensor has.
    while not x.requires_grad and torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.requires_grad


@torch.library.custom_op(
    "mmcl_fast::contrast",
    mutates_args=(),
    schema=f"({_SIGNATURE}) -> ({', '.join(['Tensor'] * (len(Gradients._fields) + 2))})",
)
def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    """(loss, *gradients, statistics): gradients as in `Gradients`, or statistics; else empty."""
    given = _Arguments(*arguments)
    loss, result = evaluated(
        given.contrast(), given.requests, given.reduction, given.backend, deferred=given.deferred
    )
    statistics = torch.stack(result.statistics) if given.deferred else loss.new_empty(0)
    return (loss, *_filled(result.gradients or Gradients(), loss), statistics)


@_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    given = _Arguments(*arguments)
    n, sides = given.query.shape[0], 2 if given.symmetric else 1
    like = given.query.new_empty((), dtype=given.contrast().dtype)
    loss = like.new_empty(n) if given.reduction == "none" else like
    statistics = like.new_empty(3 * sides, n) if given.deferred else like.new_empty(0)
    requested = Requested() if given.deferred else given.requests
    return (loss, *_shaped(given, requested, like), statistics)


@torch.library.custom_op(
    "mmcl_fast::contrast_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, Tensor statistics, {_SIGNATURE})"
    f" -> ({', '.join(['Tensor'] * len(Gradients._fields))})",
)
def _backward(upstream: Tensor, statistics: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of sum_i upstream_i loss_i, as in `Gradients`; empty where there are none."""
    given = _Arguments(*arguments)
    with without_autocast(given.query.device):
        gradients = module_of(given.backend).contrast_backward(
            given.contrast(), given.requests, statistics.unbind(), upstream
        )
    return _filled(gradients, statistics)


@_backward.register_fake
def _(upstream: Tensor, statistics: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    given = _Arguments(*arguments)
    return _shaped(given, given.requests, statistics)


def _filled(gradients: Gradients, like: Tensor) -> tuple[Tensor, ...]:
    """Gradients with empty tensors for None, as an operation must return tensors."""
    return tuple(like.new_empty(0) if x is None else x for x in gradients)


def _shaped(given: _Arguments, requested: Requested, like: Tensor) -> tuple[Tensor, ...]:
    """Empty tensors in the shapes of `Gradients`; those of temperature and bias are per row."""
    rows = given.query.shape[:1]
    return tuple(
        like.new_empty(0 if not needed or x is None else x.shape if x.dim() else rows)
        for x, needed in zip(given.inputs, requested, strict=True)
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


_forward.register_vmap(_vmap_rule(_forward))
_backward.register_vmap(_vmap_rule(_backward))


class _ContrastFunction(torch.autograd.Function):
    """Gradients from the forward pass times the upstream; deferred ones by a second pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = _forward(*arguments)
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        given = _Arguments(*inputs)
        _, *gradients, statistics = output
        ctx.set_materialize_grads(False)
        ctx.dtypes = [None if x is None else x.dtype for x in given.inputs]
        ctx.requests, ctx.deferred = given.requests, given.deferred
        if given.deferred:
            tensors = given[: _Arguments._fields.index("form")]
            ctx.save_for_backward(statistics, *tensors)
            ctx.options = given[len(tensors) :]
        else:
            ctx.save_for_backward(*gradients)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *others: Tensor | None) -> tuple[Any, ...]:
        unused = (None,) * (len(_Arguments._fields) - len(ctx.requests))
        # The saved gradients are outputs, so their differentiation comes back here. (A compiler
        # traces this with all outputs, and refuses second derivatives itself.)
        if any(x is not None for x in others) and not torch.compiler.is_compiling():
            refuse_twice()
        if upstream is None:
            return (*(None for _ in ctx.requests), *unused)
        if ctx.deferred:
            statistics, *tensors = ctx.saved_tensors
            backward: Any = (
                _backward if torch.compiler.is_compiling() else _OnceDifferentiable.apply
            )
            gradients = backward(upstream, statistics, *tensors, *ctx.options)
            upstream = upstream.new_ones(())
        else:
            gradients = ctx.saved_tensors
        results: list[Tensor | None] = [None] * len(ctx.requests)
        for k, (x, needed, dtype) in enumerate(
            zip(gradients, ctx.requests, ctx.dtypes, strict=True)
        ):
            if needed:
                results[k] = scaled(x, upstream, dtype, add=k >= FIRST_SCALAR)
        return (*results, *unused)


class _OnceDifferentiable(torch.autograd.Function):
    """The backward pass as an operation that refuses to be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = _backward(*arguments)
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        refuse_twice()


__all__ = ["Reduction", "contrast_loss"]

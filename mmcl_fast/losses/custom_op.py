"""The losses as operations of torch: `mmcl_fast::contrast` and its backward pass.

Both are opaque to `torch.compile`, which knows the shapes of their results. Which gradients are
wanted is an argument, since an operation cannot ask whether its inputs require grad: a forward pass
computes them at once where it can, and what nobody wants costs nothing.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast, get_type_hints

import torch
from torch import Tensor

from mmcl_fast.losses.autograd import (
    FIRST_NUMBER,
    eager_loss,
    evaluated,
    is_watched,
    refuse_twice,
    scaled,
    without_autocast,
)
from mmcl_fast.losses.backends import module_of
from mmcl_fast.losses.contrast import Contrast, Form, Gradients, Wanted

Reduction = Literal["none", "mean", "sum"]


class _Arguments(NamedTuple):
    """A contrast and how its loss is taken, as an operation has them: flat, no dataclass."""

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
    wanted: list[int]  # as in `Wanted`, whose fields are the first six arguments

    @classmethod
    def of(cls, contrast: Contrast, want: Wanted, reduction: str, backend: str) -> _Arguments:
        shared = {name: getattr(contrast, name) for name in cls._fields if hasattr(contrast, name)}
        own, other = contrast.labels or (None, None)
        wanted = [int(w) for w in want]
        shared |= {"labels": own, "key_labels": other}
        return cls(**shared, reduction=reduction, backend=backend, wanted=wanted)

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
        """What may have a gradient, as in `Wanted`."""
        return (
            self.query, self.key, self.positive_key, self.hard, self.temperature, self.bias
        )  # fmt: skip

    @property
    def want(self) -> Wanted:
        return Wanted(*map(bool, self.wanted))

    @property
    def deferred(self) -> bool:
        """Whether a row's upstream reaches more than that row's gradient, so must come first."""
        return _is_deferred(self, self.want, self.reduction)


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
    wanted = _wanted(contrast)
    if not (is_watched(_tensors(contrast)) or _is_deferred(contrast, wanted, reduction)):
        return eager_loss(contrast, wanted, reduction, backend)
    arguments = _Arguments.of(contrast, wanted, reduction, backend)
    results: tuple[Tensor, ...] = _ContrastFunction.apply(*_distinct(arguments))  # type: ignore[no-untyped-call]
    return results[0]


def _is_deferred(contrast: Contrast | _Arguments, wanted: Wanted, reduction: str) -> bool:
    two_sided = contrast.symmetric or contrast.key is None or wanted.key
    return reduction == "none" and not contrast.stopped and two_sided and any(wanted)


def _tensors(contrast: Contrast) -> tuple[Tensor | None, ...]:
    further = contrast.labels or (None, None)
    inputs = (getattr(contrast, name) for name in Wanted._fields)
    return (*inputs, contrast.positive, *further)


def _distinct(arguments: _Arguments) -> list[Any]:
    """No tensor twice, which a compiler refuses: views of what has been there."""
    seen: list[Any] = []
    for x in arguments:
        if isinstance(x, Tensor) and any(x is y for y in seen):
            seen.append(x.view_as(x))
        else:
            seen.append(x)
    return seen


def _wanted(contrast: Contrast) -> Wanted:
    if not torch.is_grad_enabled():
        return Wanted()
    inputs = (getattr(contrast, name) for name in Wanted._fields)
    wanted = Wanted(*(x is not None and _requires_grad(x) for x in inputs))
    if contrast.stopped and not contrast.symmetric:
        wanted = wanted._replace(key=False, positive_key=False, hard=False)
    return wanted


def _requires_grad(x: Tensor) -> bool:
    if torch.compiler.is_compiling():  # a compiler cannot trace what follows, nor vmap of this
        return x.requires_grad
    # Inside `torch.vmap` a tensor says no, whatever the tensor says that it is a slice of.
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
    loss, done = evaluated(
        given.contrast(), given.want, given.reduction, given.backend, deferred=given.deferred
    )
    statistics = torch.stack(done.statistics) if given.deferred else loss.new_empty(0)
    return (loss, *_filled(done.gradients or Gradients(), loss), statistics)


@_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    given = _Arguments(*arguments)
    n, sides = given.query.shape[0], 2 if given.symmetric else 1
    like = given.query.new_empty((), dtype=given.contrast().dtype)
    loss = like.new_empty(n) if given.reduction == "none" else like
    statistics = like.new_empty(3 * sides, n) if given.deferred else like.new_empty(0)
    wanted = Wanted() if given.deferred else given.want
    return (loss, *_shaped(given, wanted, like), statistics)


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
        found = module_of(given.backend).contrast_backward(
            given.contrast(), given.want, statistics.unbind(), upstream
        )
    return _filled(found, statistics)


@_backward.register_fake
def _(upstream: Tensor, statistics: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    given = _Arguments(*arguments)
    return _shaped(given, given.want, statistics)


def _filled(found: Gradients, like: Tensor) -> tuple[Tensor, ...]:
    """Gradients with something empty for what is None, as an operation must return tensors."""
    return tuple(like.new_empty(0) if x is None else x for x in found)


def _shaped(given: _Arguments, wanted: Wanted, like: Tensor) -> tuple[Tensor, ...]:
    """Empty tensors in the shapes of `Gradients`; those of temperature and bias are per row."""
    rows = given.query.shape[:1]
    return tuple(
        like.new_empty(0 if not wants or x is None else x.shape if x.dim() else rows)
        for x, wants in zip(given.inputs, wanted, strict=True)
    )


def _looped(operation: Any) -> Any:
    """The rule of `torch.vmap` for an operation: one call after the other."""

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


_forward.register_vmap(_looped(_forward))
_backward.register_vmap(_looped(_backward))


class _ContrastFunction(torch.autograd.Function):
    """Gradients of the forward pass times the upstream; the deferred ones by a second pass."""

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
        ctx.want, ctx.deferred = given.want, given.deferred
        if given.deferred:
            tensors = given[: _Arguments._fields.index("form")]
            ctx.save_for_backward(statistics, *tensors)
            ctx.options = given[len(tensors) :]
        else:
            ctx.save_for_backward(*gradients)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *others: Tensor | None) -> tuple[Any, ...]:
        unused = (None,) * (len(_Arguments._fields) - len(ctx.want))
        # The saved gradients are outputs, so a penalty on the gradient comes back here. (A compiler
        # traces this with all of them, and refuses to differentiate twice itself.)
        if any(x is not None for x in others) and not torch.compiler.is_compiling():
            refuse_twice()
        if upstream is None:
            return (*(None for _ in ctx.want), *unused)
        if ctx.deferred:
            statistics, *tensors = ctx.saved_tensors
            again: Any = _backward if torch.compiler.is_compiling() else _Once.apply
            found = again(upstream, statistics, *tensors, *ctx.options)
            upstream = upstream.new_ones(())
        else:
            found = ctx.saved_tensors
        results: list[Tensor | None] = [None] * len(ctx.want)
        for k, (x, wants, dtype) in enumerate(zip(found, ctx.want, ctx.dtypes, strict=True)):
            if wants:
                results[k] = scaled(x, upstream, dtype, add=k >= FIRST_NUMBER)
        return (*results, *unused)


class _Once(torch.autograd.Function):
    """The backward pass as an operation that says so when it is differentiated."""

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

"""Gradients in the dtypes of their inputs, rounded once, times the upstream gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Gradients, Requested

FIRST_SCALAR = Requested._fields.index("temperature")  # this input and later ones are 0-d


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
    if is_batched(upstream):  # knows no `out=`
        return (gradient * upstream).to(dtype)
    # One pass that rounds its result, instead of a second pass over float32.
    return torch.mul(gradient, upstream, out=torch.empty_like(gradient, dtype=dtype))


def is_batched(upstream: Tensor) -> bool:
    """Whether it stands for several, as with `is_grads_batched` of `torch.autograd.grad`."""
    if torch._C._functorch.is_legacy_batchedtensor(upstream):
        return True
    return torch._C._functorch.is_functorch_wrapped_tensor(upstream)


__all__ = ["FIRST_SCALAR", "is_batched", "rounded", "scaled"]

"""Error budgets that come from data: how far plain torch itself is from the exact result."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Results = Mapping[str, Tensor]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype the losses promise to compute in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def value_and_grads(
    function: Callable[..., Tensor],
    tensors: Mapping[str, Tensor],
    upstream: Tensor | None = None,
) -> dict[str, Tensor]:
    """`function(**tensors)` as "value", and its gradient in every tensor under the tensor's name.

    Gradients of sum(upstream * value); a tensor that gets none has zeros.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    value = function(**leaves)
    upstream = torch.ones_like(value) if upstream is None else upstream.to(value.dtype)
    grads = torch.autograd.grad(
        value, list(leaves.values()), upstream, allow_unused=True, materialize_grads=True
    )
    return {"value": value.detach(), **dict(zip(leaves, grads, strict=True))}


def error(found: Tensor, exact: Tensor) -> float:
    """Largest absolute difference, measured in the dtype of `exact`."""
    if not exact.numel():
        return 0.0
    return (found.to(exact.dtype) - exact).abs().max().item()


def assert_within_budget(
    ours: Results,
    *,
    plain: Results,
    exact: Results,
    terms: Mapping[str, float] | None = None,
) -> None:
    """Every tensor: error <= 2 * (error of plain + eps of our dtype * max|exact|).

    Plus half the spacing of our dtype's subnormal numbers, which no rounding can avoid.

    Args:
        ours: What is tested.
        plain: The reference in the arithmetic that is promised, on the same rounded inputs.
        exact: The reference in float64, on the same rounded inputs.
        terms: For a single number that is a sum of terms of both signs, the sum of their sizes in
            place of max|exact|: plain is sometimes right by luck there, and luck is no budget.
    """
    assert ours.keys() == plain.keys() == exact.keys()
    for name, value in ours.items():
        scale = exact[name].abs().max().item() if exact[name].numel() else 0.0
        scale = max(scale, (terms or {}).get(name, 0.0))
        info = torch.finfo(value.dtype)
        budget = 2 * (error(plain[name], exact[name]) + info.eps * scale)
        budget += info.smallest_normal * info.eps / 2
        found = error(value, exact[name])
        assert value.shape == exact[name].shape, name
        assert found <= budget, f"{name}: error {found:.3g} > budget {budget:.3g}"

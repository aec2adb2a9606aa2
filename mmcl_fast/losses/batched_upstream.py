"""Several upstream gradients at once, as `is_grads_batched` of `torch.autograd.grad` gives them.

A batched tensor stands for its slices and knows few operations; of an operation of `custom_op.py`
torch makes one call a slice.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Gradients
from mmcl_fast.losses.custom_op import Arguments, contrast_along, contrast_backward
from mmcl_fast.losses.evaluation import Task
from mmcl_fast.losses.rounding import is_batched


def any_batched(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether one of the tensors stands for several."""
    return any(x is not None and is_batched(x) for x in tensors)


def batched_gradients(task: Task, statistics: tuple[Tensor, ...], upstream: Tensor) -> Gradients:
    """`weighted_gradients` of each slice of the upstream gradient.

    Args:
        task: The loss, with a plain contrast.
        statistics: Those of `evaluated`.
        upstream: [N], batched.
    """
    kept = torch.stack(statistics) if statistics else task.contrast.query.new_empty(0)
    results = contrast_backward(upstream, kept, *Arguments.of(task))
    pairs = zip(results, task.requested, strict=True)
    return Gradients(*(x if needed else None for x, needed in pairs))


def batched_derivatives(
    task: Task, upstream: Tensor, tangents: tuple[Tensor | None, ...]
) -> tuple[Tensor, Gradients]:
    """`directional_derivatives` of each slice of the upstream gradient and the tangents.

    Args:
        task: The loss, with a plain contrast.
        upstream: [N], the weight of each row's loss.
        tangents: In the order of `Requested`; some are batched.

    Returns: [N], and gradients, which are empty where none is requested.
    """
    losses, *moved = contrast_along(upstream, *tangents, *Arguments.of(task))
    return losses, Gradients(*moved)


def refuse_graph() -> NoReturn:
    """Raises RuntimeError: no graph can be recorded below a batched tensor."""
    raise RuntimeError(
        "mmcl_fast losses: expected create_graph=False with is_grads_batched=True (vectorize=True "
        "of torch.autograd.functional), got True; take one vector after the other (vectorize="
        "False), or torch.func.jacrev and torch.func.hessian"
    )


__all__ = ["any_batched", "batched_derivatives", "batched_gradients", "refuse_graph"]

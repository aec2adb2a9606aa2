"""One step of full-batch gradient descent by autograd, equations (7) and (10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradient_descent_step(
    loss: Callable[..., Tensor], weights: Sequence[Tensor], eta: float
) -> tuple[Tensor, list[Tensor]]:
    """`w <- w - eta dL/dw` for every weight matrix [m, d].

    Args:
        loss: Maps the weight matrices to the scalar loss.
        weights: One matrix for single-modal training, two for multi-modal.
        eta: Learning rate.

    Returns: The loss before the step, and the new weights (detached).
    """
    leaves = [w.detach().requires_grad_() for w in weights]
    value = loss(*leaves)
    gradients = torch.autograd.grad(value, leaves)
    return value.detach(), [(w - eta * g).detach() for w, g in zip(leaves, gradients, strict=True)]


__all__ = ["gradient_descent_step"]

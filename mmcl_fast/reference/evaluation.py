"""Out-of-distribution evaluation: a logistic head on learned embeddings (Figure 1, panel 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

NEWTON_STEPS = 100
ARMIJO = 1e-4


def logistic_objective(
    weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor, l2: float
) -> Tensor:
    """`mean_i log(1 + exp(-y_i (<w, f_i> + b))) + l2/2 |w|^2`; the intercept is not penalised."""
    margin = labels.to(features.dtype) * (features @ weight + bias)
    return F.softplus(-margin).mean() + 0.5 * l2 * weight.square().sum()


def fit_logistic_head(features: Tensor, labels: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Minimise the logistic objective by Newton's method, gradient and Hessian from autograd.

    Args:
        features: [n, p], float64 for a trustworthy optimum.
        labels: +-1 of both signs, [n].
        l2: Penalty; 1 / n is scikit-learn's C = 1.

    Returns: Weight [p] and bias (0-d).
    """

    def objective(theta: Tensor) -> Tensor:
        return logistic_objective(theta[:-1], theta[-1], features, labels, l2)

    theta = features.new_zeros(features.shape[1] + 1)
    tolerance = 10 * torch.finfo(features.dtype).eps
    for _ in range(NEWTON_STEPS):
        gradient = jacobian(objective, theta)
        if gradient.abs().max() <= tolerance:
            break
        step = torch.linalg.solve(hessian(objective, theta), gradient)
        size, value, slope = 1.0, objective(theta), gradient @ step
        while objective(theta - size * step) > value - ARMIJO * size * slope and size > 1e-10:
            size /= 2
        theta = theta - size * step
    return theta[:-1], theta[-1]


def ood_accuracy(
    train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, l2: float | None = None
) -> Tensor:
    """Accuracy on test embeddings [k, m] of a head fitted on training embeddings [n, m]; scalar."""
    weight, bias = fit_logistic_head(train, labels, 1 / len(train) if l2 is None else l2)
    predicted = torch.where(test @ weight + bias > 0, 1, -1)
    return (predicted == test_labels).to(train.dtype).mean()


__all__ = ["fit_logistic_head", "logistic_objective", "ood_accuracy"]

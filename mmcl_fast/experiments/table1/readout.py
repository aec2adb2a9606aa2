"""Reading a trained encoder: features, linear probes, confusion by colour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmcl_fast.data.mnist.colored_mnist import CLASSES, ColouredDigits

EVALUATION_BATCH = 1000  # images embedded at a time


@torch.no_grad()
def embed_images(encoder: nn.Module, data: ColouredDigits) -> Tensor:
    """Features [n, p] float32 of all images, in evaluation mode (fixed batch normalisation)."""
    encoder.eval()
    starts = range(0, len(data), EVALUATION_BATCH)
    parts = [encoder(data.images(slice(s, s + EVALUATION_BATCH))) for s in starts]
    return torch.cat(parts)


@dataclass(frozen=True)
class LinearProbe:
    """Multinomial logistic regression on standardised features; float64 on the CPU.

    Attributes:
        mean: Mean of the training features, [p].
        scale: Their standard deviation, 1 where it is 0, [p].
        weight: [p, 10].
        bias: [10], not penalised.
        iterations: L-BFGS iterations taken.
        gradient: Largest absolute entry of the objective's gradient at the end.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    iterations: int
    gradient: float

    def scores(self, features: Tensor) -> Tensor:
        """Logits [n, 10], float64 on the CPU."""
        scaled = (features.to("cpu", torch.float64) - self.mean) / self.scale
        return scaled @ self.weight + self.bias

    def predict(self, features: Tensor) -> Tensor:
        """Classes [n], the least where scores are equal."""
        return self.scores(features).argmax(1)


def fit_probe(features: Tensor, targets: Tensor, *, l2: float, iterations: int) -> LinearProbe:
    """Minimise mean cross-entropy + l2 |W|^2 by L-BFGS from 0.

    Args:
        features: [n, p], floating, any device.
        targets: Classes [n], 0 .. 9.
        l2: Penalty, >= 0. With 0 and separable data there is no optimum: the number of iterations
            then decides, as it does wherever fewer are allowed than convergence takes.
        iterations: Most iterations, >= 1.

    Returns: The probe.
    Numerics: float64; stops early where no entry of the gradient exceeds 1e-6.
    """
    inputs = features.detach().to("cpu", torch.float64)
    targets = targets.cpu()
    mean = inputs.mean(0)
    deviation = inputs.std(0, correction=0)
    scale = torch.where(deviation > 0, deviation, 1.0)
    scaled = (inputs - mean) / scale
    weight = torch.zeros(inputs.shape[1], CLASSES, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        max_eval=2 * iterations,
        tolerance_grad=1e-6,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        penalty = l2 * weight.square().sum()
        value = cross_entropy(scaled @ weight + bias, targets) + penalty
        value.backward()
        return value

    optimizer.step(objective)
    objective()
    assert weight.grad is not None
    assert bias.grad is not None
    return LinearProbe(
        mean=mean,
        scale=scale,
        weight=weight.detach(),
        bias=bias.detach(),
        iterations=optimizer.state[weight]["n_iter"],
        gradient=max(weight.grad.abs().max().item(), bias.grad.abs().max().item()),
    )


def confusion_by_colour(predicted: Tensor, colours: Tensor) -> list[list[int]]:
    """How many images of each colour (row) were given each class (column)."""
    pairs = colours * CLASSES + predicted
    counts = torch.bincount(pairs, minlength=CLASSES**2)
    return counts.view(CLASSES, CLASSES).tolist()


__all__ = [
    "LinearProbe",
    "confusion_by_colour",
    "embed_images",
    "fit_probe",
]

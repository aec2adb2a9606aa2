"""Linear readouts of features of length 1: class centroids, and a probe of a few epochs.

Both are weak on purpose: they read the directions along which features differ most, which for
single-modal learning are those of colour. `fit_probe` on standardised features reads more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot


@dataclass(frozen=True)
class UnitReadout:
    """Scores that are linear in the normalised features; float64 on the CPU.

    Attributes:
        weight: [p, K].
        bias: [K]; -inf for a class that no image had.
    """

    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Scores [n, K] of features [n, p] of any length and device."""
        return _unit(features) @ self.weight + self.bias


def fit_centroids(features: Tensor, targets: Tensor, classes: int) -> UnitReadout:
    """Nearest centroid: -|f - c_k|^2 up to a term that is equal for all classes.

    Args:
        features: [n, p], floating, any device; normalised before means are taken.
        targets: Classes [n], 0 .. classes - 1.
        classes: K.
    """
    unit, targets = _unit(features), targets.cpu()
    members = one_hot(targets, classes).to(torch.float64)  # [n, K]
    counts = members.sum(0)
    centres = members.T @ unit / counts.clamp(min=1.0)[:, None]  # [K, p]
    bias = torch.where(counts > 0, -centres.square().sum(1), -torch.inf)
    return UnitReadout(2.0 * centres.T, bias)


def fit_short_probe(
    features: Tensor, targets: Tensor, classes: int, *, rate: float, batches: Iterable[Tensor]
) -> UnitReadout:
    """Multinomial logistic regression on normalised features by Adam from 0, stopped early.

    Args:
        features: [n, p], floating, any device.
        targets: Classes [n], 0 .. classes - 1.
        classes: K.
        rate: Adam's step size, > 0.
        batches: Index tensors, one an optimiser step: they decide how far the probe gets.
    """
    unit, targets = _unit(features), targets.cpu()
    weight = torch.zeros(unit.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=rate)
    for index in batches:
        optimizer.zero_grad()
        cross_entropy(unit[index] @ weight + bias, targets[index]).backward()
        optimizer.step()
    return UnitReadout(weight.detach(), bias.detach())


def _unit(features: Tensor) -> Tensor:
    return normalize(features.detach().to("cpu", torch.float64))


__all__ = ["UnitReadout", "fit_centroids", "fit_short_probe"]

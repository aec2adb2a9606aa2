"""The paper's two-layer encoder as arithmetic on pre-activations, and as a PyTorch module."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def power_relu(z: Tensor, q: int) -> Tensor:
    """`act(z) = max(0, z)^q` (3), any shape."""
    return torch.relu(z) if q == 1 else torch.relu(z).pow(q)


def power_relu_backward(gradient: Tensor, z: Tensor, q: int) -> Tensor:
    """`gradient * act'(z)`; `act'(z) = q max(0, z)^(q - 1)`, 0 at z = 0, any shape."""
    if q == 1:
        return torch.ops.aten.threshold_backward(gradient, z, 0.0)  # type: ignore[no-any-return]
    return torch.relu(z).pow_(q - 1).mul_(gradient).mul_(q)


def signal_gradient(gradient: Tensor, z: Tensor, q: int) -> Tensor:
    """Gradient with respect to <w_r, mu> from those of its two features, [R, m, 2] to [R, m, 1].

    Args:
        gradient: With respect to act(<w_r, mu>) and act(-<w_r, mu>), [R, m, 2].
        z: <w_r, mu> and -<w_r, mu>, [R, m, 2].
        q: Power of the activation.
    """
    both = power_relu_backward(gradient, z, q)
    return both[:, :, :1] - both[:, :, 1:]


class TwoLayerEncoder(nn.Module):
    """`hbar_r(x) = act(<w_r, signal>) + act(<w_r, noise>)` (3), with trained weights [m, d].

    Args:
        weights: [m, d].
        q: Power of the activation, >= 1.
    """

    def __init__(self, weights: Tensor, q: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights)
        self.q = q

    def forward(self, signal: Tensor, noise: Tensor) -> Tensor:
        """Embed patches [n, d] and [n, d] to [n, m]."""
        return self._activations(signal) + self._activations(noise)

    def features(self, signal: Tensor, noise: Tensor) -> Tensor:
        """The 2 m features of (4), whose inner products over m are the similarity, [n, 2 m].

        `[act(<w_r, signal>), act(<w_r, noise>)]` of patches [n, d] and [n, d]: what the losses (6)
        and (9) compare.
        """
        return torch.cat([self._activations(signal), self._activations(noise)], dim=1)

    def _activations(self, patches: Tensor) -> Tensor:
        return power_relu(patches @ self.weight.T, self.q)


__all__ = ["TwoLayerEncoder", "power_relu", "power_relu_backward", "signal_gradient"]

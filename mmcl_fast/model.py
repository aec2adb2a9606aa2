"""The paper's two-layer encoder as arithmetic on pre-activations, and as a PyTorch module."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def power_relu(z: Tensor, q: int) -> Tensor:
    """`act(z) = max(0, z)^q` (3), any shape."""
    return torch.relu(z) if q == 1 else torch.relu(z).pow(q)


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


__all__ = ["TwoLayerEncoder", "power_relu"]

"""The two-layer encoder, equation (3): polynomial ReLU neurons without a trained second layer."""

from __future__ import annotations

import torch
from torch import Tensor


def activation(z: Tensor, q: int = 1) -> Tensor:
    """`act(z) = max(0, z)^q`; its derivative at z = 0 is 0 for every q (built on relu)."""
    return torch.relu(z) if q == 1 else torch.relu(z) ** q


def patch_features(weights: Tensor, patches: Tensor, q: int = 1) -> Tensor:
    """`h_r(v_i) = act(<w_r, v_i>)`: weights [m, d] and patches [n, d] give [n, m]."""
    return activation(patches @ weights.T, q)


def features(weights: Tensor, signal: Tensor, noise: Tensor, q: int = 1) -> Tensor:
    """`H(x_i)`, both patches' activations side by side: two [n, d] give [n, 2 m] (4)."""
    return torch.cat([patch_features(weights, signal, q), patch_features(weights, noise, q)], dim=1)


def embedding(weights: Tensor, signal: Tensor, noise: Tensor, q: int = 1) -> Tensor:
    """`hbar_r(x_i) = h_r(signal_i) + h_r(noise_i)` (3): two [n, d] give [n, m]."""
    return patch_features(weights, signal, q) + patch_features(weights, noise, q)


__all__ = ["activation", "embedding", "features", "patch_features"]

"""Signal learning gamma and noise memorisation rho: equations (11)-(18), Lemmas 5.1 and 5.3.

`w_r(t) = w_r(0) + gamma_r(t) mu / |mu|^2 + sum_i rho_{r,i}(t) xi_i / |xi_i|^2`, and likewise for
modality B. Both lemmas are the same recursion; only the keys of the softmax differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.reference.encoder import activation


@dataclass(frozen=True)
class Keys:
    """Activations of the second argument, and the softmax weights they get.

    Attributes:
        signal: Signal patches' activations of the keys, [n, m].
        noise: Noise patches' activations of the keys, [n, m].
        positive_signal: Signal patches' activations of the positives, [n, m].
        positive_noise: Noise patches' activations of the positives, [n, m].
        p_positive: Softmax weight p_ii of each positive, [n].
        p_negative: Softmax weights p_ij, 0 outside N(i), [n, n].
    """

    signal: Tensor
    noise: Tensor
    positive_signal: Tensor
    positive_noise: Tensor
    p_positive: Tensor
    p_negative: Tensor


def derivative(z: Tensor, q: int) -> Tensor:
    """`act'(z) = q max(0, z)^(q - 1)`, 0 at z = 0."""
    return (z > 0).to(z.dtype) * q * activation(z, 1) ** (q - 1)


def gamma_increment(
    signal_preactivations: Tensor, labels: Tensor, keys: Keys, *, q: int, scale: float
) -> Tensor:
    """`(gamma_r(t+1) - gamma_r(t)) / |mu|^2` for every neuron, [m].

    Args:
        signal_preactivations: `<w_r, y_i mu>`, [n, m].
        labels: y, [n].
        keys: The second arguments of the similarity.
        q: Power of the activation.
        scale: `eta / (n m tau)`.
    """
    attraction = (1 - keys.p_positive).unsqueeze(
        1
    ) * keys.positive_signal - keys.p_negative @ keys.signal
    y = labels.to(attraction.dtype).unsqueeze(1)
    return scale * (y * derivative(signal_preactivations, q) * attraction).sum(dim=0)


def rho_increment(noise_preactivations: Tensor, keys: Keys, *, q: int, scale: float) -> Tensor:
    """`(rho_{r,i}(t+1) - rho_{r,i}(t)) / |xi_i|^2` for every neuron and sample, [m, n].

    Args:
        noise_preactivations: `<w_r, xi_i>`, [n, m].
        keys: The second arguments of the similarity.
        q: Power of the activation.
        scale: `eta / (n m tau)`.
    """
    attraction = (1 - keys.p_positive).unsqueeze(
        1
    ) * keys.positive_noise - keys.p_negative @ keys.noise
    return scale * (derivative(noise_preactivations, q) * attraction).T


def weights_from_coefficients(
    initial: Tensor, gamma: Tensor, rho: Tensor, mu: Tensor, noise: Tensor
) -> Tensor:
    """`w_r(t)` from (gamma, rho): initial [m, d], gamma [m], rho [m, n], mu [d], noise [n, d]."""
    along_mu = torch.outer(gamma, mu / mu.square().sum())
    along_noise = rho @ (noise / noise.square().sum(dim=1, keepdim=True))
    return initial + along_mu + along_noise


def signal_learning(weights: Tensor, mu: Tensor) -> Tensor:
    """`max_r |<w_r, mu>|`, the third panel of Figure 1; a scalar."""
    return (weights @ mu).abs().max()


def noise_memorisation(weights: Tensor, noise: Tensor) -> Tensor:
    """`max_{r,i} <w_r, xi_i>`, the fourth panel of Figure 1; a scalar."""
    return (noise @ weights.T).max()


__all__ = [
    "Keys",
    "derivative",
    "gamma_increment",
    "noise_memorisation",
    "rho_increment",
    "signal_learning",
    "weights_from_coefficients",
]

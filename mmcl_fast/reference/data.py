"""The data model, equations (1), (2) and (5): an example is a signal patch and a noise patch."""

from __future__ import annotations

from torch import Tensor


def signal_patches(labels: Tensor, signal: Tensor) -> Tensor:
    """Signal patches `y_i mu` of equations (1), (2): labels [n] of +-1 and mu [d] give [n, d]."""
    return labels.to(signal.dtype).unsqueeze(1) * signal


def augment(noise: Tensor, epsilon: Tensor) -> Tensor:
    """Noise patches of the augmented view, `xi_i + eps_i` (5): two [n, d] give [n, d].

    The signal patch of an augmented view is that of the original.
    """
    return noise + epsilon


__all__ = ["augment", "signal_patches"]

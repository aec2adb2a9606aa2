"""Weights in R^d, rebuilt from their coefficients in the span of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.config_checks import ROTATED
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines.alignment import aligned
from mmcl_fast.engines.protocol import Coefficients
from mmcl_fast.errors import ConfigError


def modality_index(cfg: TrainConfig, modality: str) -> int:
    """0 for modality a, 1 for b.

    Raises: ConfigError: another word, or modality b of a single-modal run.
    """
    expected = "a or b" if cfg.is_multi else "a for a single-modal run"
    if modality not in (("a", "b") if cfg.is_multi else ("a",)):
        raise ConfigError(f"modality: expected {expected}, got {modality}")
    return "ab".index(modality)


def require_coordinates(cfg: TrainConfig) -> None:
    """Raise ConfigError for data in other coordinates, whose weights in R^d do not exist."""
    if cfg.data in ROTATED:
        raise ConfigError(
            f"weights: expected explicit data, got {cfg.data} (weights in R^d do not exist)"
        )


def weights_in_span(span: Coefficients, data: SignalNoiseData, modality: int) -> Tensor:
    """`a w_r(0) + mu_r mu + sum_i noise_{r,i} xi_i` of one run, [m, d], on the data's device.

    Args:
        span: Coefficients of one run: a 0-d, mu [m], noise [m, n].
        data: The run's data.
        modality: 0 for a, 1 for b.
    """
    names = ("weights", "mu", "noise") if modality == 0 else ("weights_b", "mu_b", "noise_b")
    vectors: list[Tensor] = [getattr(data, name) for name in names]
    initial, mu, noise = vectors
    a, along_mu, along_noise = (x.to(mu.device) for x in (span.initial, span.mu, span.noise))
    return a * initial + torch.outer(along_mu, mu) + aligned(along_noise) @ aligned(noise)


__all__ = ["modality_index", "require_coordinates", "weights_in_span"]

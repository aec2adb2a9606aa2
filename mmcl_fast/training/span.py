"""Weights in R^d, rebuilt from their coefficients in the span of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.config import SUFFIXES, TrainConfig
from mmcl_fast.config_checks import ROTATED
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines.alignment import aligned
from mmcl_fast.engines.protocol import Coefficients
from mmcl_fast.errors import ConfigError


def modality_index(cfg: TrainConfig, modality: str) -> int:
    """0 for modality a, 1 for b, 2 for c.

    Raises: ConfigError: another word, or a modality that the run does not have.
    """
    known = cfg.modalities
    if modality not in known:
        expected = " or ".join(known) if cfg.is_multi else "a for a single-modal run"
        raise ConfigError(f"modality: expected {expected}, got {modality}")
    return known.index(modality)


def require_coordinates(cfg: TrainConfig) -> None:
    """Raise ConfigError for data in other coordinates, whose weights in R^d do not exist."""
    if cfg.data in ROTATED:
        raise ConfigError(
            f"weights: expected explicit data, got {cfg.data} (weights in R^d do not exist)"
        )


def weights_in_span(span: Coefficients, data: SignalNoiseData, modality: int) -> Tensor:
    """The weights of one run, [m, d], on the data's device.

    `a w_r(0) + mu_r mu + sum_i noise_{r,i} xi_i`; with classes the sum of `mu_{r,k} mu_k`; with a
    spurious signal and trained keys also `spurious_r s + sum_i views_{r,i} x'_i`, x'_i being the
    noise patch of the view i.

    Args:
        span: Coefficients of one run: initial 0-d, mu [m] or [m, K], noise [m, n], spurious [m],
            views [m, n].
        data: The run's data.
        modality: 0 for a, 1 for b, 2 for c.
    """
    suffix = tuple(SUFFIXES.values())[modality]
    initial, mu, noise, spurious = (
        getattr(data, f"{name}{suffix}") for name in ("weights", "mu", "noise", "spurious")
    )
    a, along_mu, along_noise = (x.to(mu.device) for x in (span.initial, span.mu, span.noise))
    signal = torch.outer(along_mu, mu) if mu.ndim == 1 else along_mu @ mu
    weights: Tensor = a * initial + signal + aligned(along_noise) @ aligned(noise)
    if span.spurious is not None:
        weights += torch.outer(span.spurious.to(mu.device), spurious)
    if span.views is not None:
        assert data.augmented is not None
        weights += aligned(span.views.to(mu.device)) @ aligned(data.augmented)
    return weights


__all__ = ["modality_index", "require_coordinates", "weights_in_span"]

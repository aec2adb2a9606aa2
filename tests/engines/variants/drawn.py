"""Data of model variants from a plain generator, float32: inputs of tests of engines alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmcl_fast import TrainConfig
from mmcl_fast.data import SignalNoiseData


def drawn_data(cfg: TrainConfig, seed: int = 0) -> SignalNoiseData:
    """Data that fit a config, with positives of other samples where it has pair noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = _labels(cfg, cfg.n, rng)
    partner = torch.arange(cfg.n)
    if cfg.pair_noise:
        moved = torch.randperm(cfg.n, generator=rng)[: max(2, round(cfg.pair_noise * cfg.n))]
        partner[moved] = moved.roll(1)
    fields: dict[str, Any] = {"labels": labels, "positive_labels": None}
    if cfg.pair_noise:
        fields["positive_labels"] = labels[partner]
    noise = cfg.sigma_xi * torch.randn(cfg.n, cfg.d, generator=rng)
    eps = cfg.sigma_eps * torch.randn(cfg.n, cfg.d, generator=rng)
    if cfg.data == "orthogonal":
        noise, eps = _orthogonal(cfg)
    fields |= {
        "mu": _signal(cfg, cfg.mu_norm, cfg.d),
        "nu": _signal(cfg, cfg.nu_norm, cfg.d),
        "noise": noise,
        "augmented": (cfg.view_scale * noise + eps)[partner],
        "weights": cfg.sigma_0 * torch.randn(cfg.m, cfg.d, generator=rng),
        "test_labels": _labels(cfg, cfg.n_test, rng),
        "test_noise": cfg.sigma_xi * torch.randn(cfg.n_test, cfg.d, generator=rng),
    }
    if cfg.is_multi:
        b = cfg.sigma_xi_b_value * torch.randn(cfg.n, cfg.d_b_value, generator=rng)
        fields |= {
            "augmented": None,
            "mu_b": _signal(cfg, cfg.mu_b_norm, cfg.d_b_value),
            "noise_b": b[partner],
            "weights_b": cfg.sigma_0 * torch.randn(cfg.m, cfg.d_b_value, generator=rng),
        }
    if cfg.has_spurious:
        fields |= _spurious(cfg, labels, partner, rng)
    if cfg.objective == "logistic":
        wrong = torch.rand(cfg.n, generator=rng) < cfg.label_noise
        fields["targets"] = torch.where(wrong, -labels, labels)
        fields["augmented"] = None
    return SignalNoiseData(**fields)


def _labels(cfg: TrainConfig, count: int, rng: torch.Generator) -> Tensor:
    if cfg.classes:
        drawn = torch.randint(cfg.classes, (count,), generator=rng)
        drawn[:2] = torch.tensor([0, cfg.classes - 1])
        return drawn.float()
    return 1 - 2 * torch.randint(2, (count,), generator=rng).float()


def _signal(cfg: TrainConfig, norm: float, d: int) -> Tensor:
    axes = norm * torch.eye(cfg.axes, d)
    return axes[: cfg.classes] if cfg.classes else axes[0]


def _orthogonal(cfg: TrainConfig) -> tuple[Tensor, Tensor]:
    """Noise patches and their views' deviations, all orthogonal to each other and the signals."""
    unit = torch.eye(2 * cfg.n, cfg.d - cfg.axes)
    unit = torch.nn.functional.pad(unit, (cfg.axes, 0))
    size = cfg.d**0.5
    return cfg.sigma_xi * size * unit[: cfg.n], cfg.sigma_eps * size * unit[cfg.n :]


def _spurious(
    cfg: TrainConfig, labels: Tensor, partner: Tensor, rng: torch.Generator
) -> dict[str, Any]:
    def attributes(of: Tensor) -> Tensor:
        sign = 1 - 2 * (of % 2) if cfg.classes else of
        agrees = torch.rand(len(of), generator=rng) < (1 + cfg.spurious_correlation) / 2
        return torch.where(agrees, sign, -sign)

    own = attributes(labels)
    last = torch.eye(cfg.axes, cfg.d)[-1]
    fields: dict[str, Any] = {
        "spurious": cfg.spurious_norm * last,
        "attributes": own,
        "positive_attributes": own[partner] if cfg.pair_noise else None,
        "test_attributes": attributes(_labels(cfg, cfg.n_test, rng)),
    }
    if cfg.is_multi:
        fields["spurious_b"] = cfg.spurious_b_norm * torch.eye(cfg.axes, cfg.d_b_value)[-1]
    return fields

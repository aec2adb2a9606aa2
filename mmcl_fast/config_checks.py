"""Which settings exclude one another, and which overflow; called by `TrainConfig` alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmcl_fast.errors import ConfigError
from mmcl_fast.stream_tags import MAX_DIM

if TYPE_CHECKING:
    from mmcl_fast.config import TrainConfig

FLOAT_MAX = {
    "float32": float.fromhex("0x1.fffffep+127"),
    "float64": float.fromhex("0x1.fffffffffffffp+1023"),
}


def check_combinations(cfg: TrainConfig) -> None:
    """Refuse settings that exclude one another."""
    if cfg.optimizer == "sgd" and cfg.batch_size is None:
        raise ConfigError("batch_size: expected an integer with optimizer sgd, got None")
    if cfg.optimizer != "sgd" and cfg.batch_size is not None:
        raise ConfigError(
            f"batch_size: expected None with full-batch optimizer {cfg.optimizer}, "
            f"got {cfg.batch_size}"
        )
    if cfg.batch_size is not None and cfg.batch_size > cfg.n:
        raise ConfigError(f"batch_size: expected at most n = {cfg.n}, got {cfg.batch_size}")
    if cfg.optimizer != "momentum" and cfg.momentum is not None:
        raise ConfigError(
            f"momentum: expected None with optimizer {cfg.optimizer}, got {cfg.momentum}"
        )
    if cfg.probe_on == "train" and cfg.probe_samples is not None:
        raise ConfigError(
            f"probe_samples: expected None with probe_on train, which fits on the training "
            f"embeddings, got {cfg.probe_samples}; take probe_on = ood"
        )
    if cfg.negatives_per_sample is not None and cfg.negatives_per_sample >= cfg.n:
        raise ConfigError(
            f"negatives_per_sample: expected at most n - 1 = {cfg.n - 1} (the other label's "
            f"samples), got {cfg.negatives_per_sample}"
        )
    if cfg.negatives_per_sample is None and cfg.negatives_draw == "per_epoch":
        raise ConfigError("negatives_draw: expected fixed where all negatives are used")
    if cfg.is_multi and cfg.augment == "per_epoch":
        raise ConfigError("augment: expected fixed with modality multi (it has no augmentation)")
    if cfg.data == "reduced" and cfg.optimizer == "adam":
        raise ConfigError(
            "data: expected explicit with optimizer adam (it rescales coordinates, so a rotation "
            "of the data would change the run), got 'reduced'"
        )
    for name, d in (("d", cfg.d), ("d_b", cfg.d_b_value)):
        if cfg.data != "reduced" and d > MAX_DIM + 1:
            raise ConfigError(f"{name}: expected at most 2^34 with data {cfg.data}, got {d}")


def check_magnitudes(cfg: TrainConfig, names: Sequence[str]) -> None:
    """Refuse settings that overflow the arithmetic before the first step.

    Args:
        cfg: All settings.
        names: Those that are floating-point numbers.
    """
    largest = FLOAT_MAX[cfg.dtype]
    products = {
        name: (abs(value), name) for name in names if (value := getattr(cfg, name)) is not None
    }
    for name, d in (("sigma_xi", cfg.d), ("sigma_xi_b", cfg.d_b_value)):
        sigma = cfg.sigma_xi if name == "sigma_xi" else cfg.sigma_xi_b_value
        products[f"{name}^2 d"] = (math.prod((sigma, sigma, float(d))), name)
    for name in ("mu_norm", "mu_b_norm", "nu_norm"):
        value = getattr(cfg, name)
        products[f"{name}^2"] = (value * value, name)
    products["1 / (m tau)"] = (1.0 / max(cfg.m * cfg.tau_value, 1.0 / sys.float_info.max), "tau")
    for text, (value, name) in products.items():
        if not value <= largest:
            raise ConfigError(
                f"{name}: expected {text} to be finite in {cfg.dtype}, got {getattr(cfg, name)!r}"
            )


__all__ = ["check_combinations", "check_magnitudes"]

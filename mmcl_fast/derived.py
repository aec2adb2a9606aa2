"""Quantities of the theory that determine a setting: SNR, n SNR^2, C_mu, growth and size of noise.

Each is a function of settings, and gives back the setting that it determines. Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from numbers import Real
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mmcl_fast.errors import ConfigError

if TYPE_CHECKING:
    from mmcl_fast.config import TrainConfig

DERIVED = MappingProxyType(
    {
        "snr": "mu_norm",
        "n_snr2": "mu_norm",
        "c_mu": "mu_b_norm",
        "noise_rate": "eta",
        "noise_start": "sigma_0",
    }
)
"""Derived quantities, and the setting that each determines. c_mu comes after what sets mu_norm."""

_RULES: Mapping[str, Callable[[Mapping[str, Any], float], float]] = MappingProxyType(
    {
        "snr": lambda s, x: x * s["sigma_xi"] * math.sqrt(s["d"]),
        "n_snr2": lambda s, x: math.sqrt(x / s["n"]) * s["sigma_xi"] * math.sqrt(s["d"]),
        "c_mu": lambda s, x: x * s["mu_norm"],
        "noise_rate": lambda s, x: (
            x * s["n"] * s["m"] * s["tau"] / s["sigma_xi"] / s["sigma_xi"] / s["d"]
        ),
        "noise_start": lambda s, x: x / (s["sigma_xi"] * math.sqrt(s["d"])),
    }
)


def settings_of(given: Mapping[str, float], settings: Mapping[str, Any]) -> dict[str, float]:
    """The settings that derived quantities determine.

    Args:
        given: Values by name of the quantity.
        settings: All other settings, tau resolved; those of |mu| enter c_mu as they become.
    """
    changed: dict[str, float] = {}
    for name, target in DERIVED.items():
        if name in given:
            changed[target] = _RULES[name]({**settings, **changed}, given[name])
    return changed


def derived(cfg: TrainConfig) -> dict[str, float]:
    """Derived quantities of a run; c_mu is NaN where |mu| = 0."""
    # Products and quotients of two factors at a time neither underflow nor overflow for any valid
    # setting.
    root = math.sqrt(cfg.d)
    snr = cfg.mu_norm / (cfg.sigma_xi * root)
    start = cfg.sigma_xi * root
    return {
        "snr": snr,
        "n_snr2": cfg.n * snr * snr,
        "c_mu": cfg.mu_b_norm / cfg.mu_norm if cfg.mu_norm else math.nan,
        "noise_rate": cfg.eta * start * start / (cfg.n * cfg.m * cfg.tau_value),
        "noise_start": cfg.sigma_0 * start,
    }


def check_derived(asked: Mapping[str, Any], given: Container[str]) -> None:
    """Refuse derived quantities that are no numbers >= 0, or whose setting is given as well."""
    targets: dict[str, str] = {}
    for name, value in asked.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, Real)
            or not 0 <= float(value) < math.inf
        ):
            raise ConfigError(f"{name}: expected a finite number >= 0, got {value!r}")
        target = DERIVED[name]
        if target in given or target in targets:
            other = target if target in given else targets[target]
            raise ConfigError(f"{name}: expected {name} or {other}, which set {target}, got both")
        targets[target] = name


__all__ = ["DERIVED", "check_derived", "derived", "settings_of"]

"""Points of a sweep: each combination of axis values as validated, resolved settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines import resolve_engine
from mmcl_fast.errors import ConfigError, EngineRefusedError
from mmcl_fast.sweep.plan.axes import DERIVED, Axis, Value
from mmcl_fast.training.resolve import usable_device


def expand(axes: Sequence[Axis]) -> Iterator[dict[str, Value]]:
    """Each combination of axis values, the last axis fastest."""
    for rows in itertools.product(*(axis.rows for axis in axes)):
        point: dict[str, Value] = {}
        for axis, row in zip(axes, rows, strict=True):
            point |= zip(axis.names, row, strict=True)
        yield point


def resolve_point(base: TrainConfig, point: Mapping[str, Value]) -> TrainConfig:
    """Settings of one point, with every default and `auto` resolved.

    Derived axes are applied after the sizes, and |mu| before |mu~|, which depends on it.

    Raises: ConfigError, EngineRefusedError: naming the point.
    """
    try:
        cfg = base.replace(**{k: v for k, v in point.items() if k not in DERIVED})
        cfg = cfg.replace(device=usable_device(cfg.device))  # a plan names it
        settings: dict[str, Any] = cfg.to_dict() | {
            "engine": resolve_engine(cfg),  # depends on sizes and kinds, not on strengths
            "tau": cfg.tau_value,
            "d_b": cfg.d_b_value,
            "sigma_xi_b": cfg.sigma_xi_b_value,
        }
        if cfg.optimizer == "momentum":
            settings["momentum"] = cfg.momentum_value
        for name, target in DERIVED.items():
            if name in point:
                settings[target] = _RULES[name](settings, float(point[name] or 0.0))
        return TrainConfig(**settings)
    except (ConfigError, EngineRefusedError) as error:
        where = ", ".join(f"{k} = {v}" for k, v in point.items())
        raise type(error)(f"{error} (at {where})" if where else str(error)) from error


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


_RULES: dict[str, Callable[[dict[str, Any], float], float]] = {
    "snr": lambda s, x: x * s["sigma_xi"] * math.sqrt(s["d"]),
    "n_snr2": lambda s, x: math.sqrt(x / s["n"]) * s["sigma_xi"] * math.sqrt(s["d"]),
    "c_mu": lambda s, x: x * s["mu_norm"],
    "noise_rate": lambda s, x: (
        x * s["n"] * s["m"] * s["tau"] / s["sigma_xi"] / s["sigma_xi"] / s["d"]
    ),
    "noise_start": lambda s, x: x / (s["sigma_xi"] * math.sqrt(s["d"])),
}
"""Value of the setting that a derived axis determines, from the other settings and its value."""

__all__ = ["derived", "expand", "resolve_point"]

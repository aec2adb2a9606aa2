"""Points of a sweep: every combination of the axes as settings, validated and resolved."""

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
    """Values of every combination, the last axis fastest."""
    for rows in itertools.product(*(axis.rows for axis in axes)):
        point: dict[str, Value] = {}
        for axis, row in zip(axes, rows, strict=True):
            point |= zip(axis.names, row, strict=True)
        yield point


def settle(base: TrainConfig, point: Mapping[str, Value]) -> TrainConfig:
    """Settings of one point, resolved: nothing is left to a default or to `auto`.

    Derived axes are applied in the order in which they need each other: what sets |mu| before what
    sets |mu~|, both after the sizes.

    Raises: ConfigError, EngineRefusedError: naming the point.
    """
    try:
        settings = {k: v for k, v in point.items() if k not in DERIVED}
        cfg = base.replace(**settings)
        cfg = cfg.replace(device=usable_device(cfg.device))  # a plan names it
        told: dict[str, Any] = cfg.to_dict() | {
            "engine": resolve_engine(cfg),  # by sizes and kinds alone, not by strengths
            "tau": cfg.tau_value,
            "d_b": cfg.d_b_value,
            "sigma_xi_b": cfg.sigma_xi_b_value,
        }
        if cfg.optimizer == "momentum":
            told["momentum"] = cfg.momentum_value
        for name, target in DERIVED.items():
            if name in point:
                told[target] = _RULES[name](told, float(point[name] or 0.0))
        return TrainConfig(**told)
    except (ConfigError, EngineRefusedError) as error:
        where = ", ".join(f"{k} = {v}" for k, v in point.items())
        raise type(error)(f"{error} (at {where})" if where else str(error)) from error


def derived(cfg: TrainConfig) -> dict[str, float]:
    """The derived quantities of a run; c_mu is NaN without a signal."""
    # Products and quotients of at most two factors at a time stay clear of 0 and of overflow errors
    # for every valid setting.
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
    "snr": lambda told, x: x * told["sigma_xi"] * math.sqrt(told["d"]),
    "n_snr2": lambda told, x: math.sqrt(x / told["n"]) * told["sigma_xi"] * math.sqrt(told["d"]),
    "c_mu": lambda told, x: x * told["mu_norm"],
    "noise_rate": lambda told, x: (
        x * told["n"] * told["m"] * told["tau"] / told["sigma_xi"] / told["sigma_xi"] / told["d"]
    ),
    "noise_start": lambda told, x: x / (told["sigma_xi"] * math.sqrt(told["d"])),
}

__all__ = ["derived", "expand", "settle"]

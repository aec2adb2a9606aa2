"""Points of a sweep: every combination of the axes as settings, validated and resolved."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines import resolve_engine
from mmcl_fast.errors import ConfigError, EngineRefusedError
from mmcl_fast.sweep.axes import DERIVED, Axis, Value


def expand(axes: Sequence[Axis]) -> list[dict[str, Value]]:
    """Values of every combination, the last axis fastest."""
    found = []
    for rows in itertools.product(*(axis.rows for axis in axes)):
        point: dict[str, Value] = {}
        for axis, row in zip(axes, rows, strict=True):
            point |= zip(axis.names, row, strict=True)
        found.append(point)
    return found


def settle(base: TrainConfig, point: Mapping[str, Value], device: str) -> TrainConfig:
    """Settings of one point, resolved: nothing is left to a default or to `auto`.

    Derived axes are applied in the order in which they need each other: what sets |mu| before what
    sets |mu~|, both after the sizes.

    Raises: ConfigError, EngineRefusedError: naming the point.
    """
    try:
        settings = base.to_dict() | {k: v for k, v in point.items() if k not in DERIVED}
        cfg = TrainConfig(**settings | {"device": device})
        cfg = cfg.replace(tau=cfg.tau_value, d_b=cfg.d_b_value, sigma_xi_b=cfg.sigma_xi_b_value)
        for name, target in DERIVED.items():
            if name in point:
                cfg = cfg.replace(**{target: _RULES[name](cfg, float(point[name] or 0.0))})
        if cfg.optimizer == "momentum":
            cfg = cfg.replace(momentum=cfg.momentum_value)
        engine = resolve_engine(cfg)
        return cfg if engine == cfg.engine else cfg.replace(engine=engine)
    except (ConfigError, EngineRefusedError) as error:
        where = ", ".join(f"{k} = {v}" for k, v in point.items())
        raise type(error)(f"{error} (at {where})" if where else str(error)) from error


def derived(cfg: TrainConfig) -> dict[str, float]:
    """The derived quantities of a run; NaN where one is undefined."""
    return {
        "snr": cfg.mu_norm / (cfg.sigma_xi * math.sqrt(cfg.d)),
        "n_snr2": cfg.n * cfg.mu_norm**2 / (cfg.sigma_xi**2 * cfg.d),
        "c_mu": cfg.mu_b_norm / cfg.mu_norm if cfg.mu_norm else math.nan,
        "noise_rate": cfg.eta * cfg.sigma_xi**2 * cfg.d / (cfg.n * cfg.m * cfg.tau_value),
        "noise_start": cfg.sigma_0 * cfg.sigma_xi * math.sqrt(cfg.d),
    }


_RULES: dict[str, Callable[[TrainConfig, float], float]] = {
    "snr": lambda cfg, x: x * cfg.sigma_xi * math.sqrt(cfg.d),
    "n_snr2": lambda cfg, x: math.sqrt(x * cfg.sigma_xi**2 * cfg.d / cfg.n) if x >= 0 else math.nan,
    "c_mu": lambda cfg, x: x * cfg.mu_norm,
    "noise_rate": lambda cfg, x: x * cfg.n * cfg.m * cfg.tau_value / (cfg.sigma_xi**2 * cfg.d),
    "noise_start": lambda cfg, x: x / (cfg.sigma_xi * math.sqrt(cfg.d)),
}

__all__ = ["derived", "expand", "settle"]

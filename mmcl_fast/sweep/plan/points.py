"""Points of a sweep: each combination of axis values as validated, resolved settings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmcl_fast.config import TrainConfig
from mmcl_fast.derived import DERIVED, settings_of
from mmcl_fast.engines import resolve_engine
from mmcl_fast.errors import ConfigError, EngineRefusedError
from mmcl_fast.sweep.plan.axes import Axis, Value
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
            "probe_samples": cfg.probe_samples_value or None,
        }
        if cfg.optimizer == "momentum":
            settings["momentum"] = cfg.momentum_value
        asked = {name: float(point[name] or 0.0) for name in DERIVED if name in point}
        return TrainConfig(**settings | settings_of(asked, settings))
    except (ConfigError, EngineRefusedError) as error:
        where = ", ".join(f"{k} = {v}" for k, v in point.items())
        raise type(error)(f"{error} (at {where})" if where else str(error)) from error


__all__ = ["expand", "resolve_point"]

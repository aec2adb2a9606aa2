"""Points of a sweep: each combination of axis values as validated, resolved settings.

`resolve_point` is of one combination; `resolve_points` is the same of all, column by column: a
function of few settings is called once for each distinct tuple of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mmcl_fast.config import FIELD_NAMES, MAGNITUDES, SEEDS, TrainConfig, checked_value
from mmcl_fast.config_checks import COMBINED, check_combinations
from mmcl_fast.config_variants import SPURIOUS, test_correlation
from mmcl_fast.derived import DERIVED, settings_of
from mmcl_fast.engines import resolve_engine
from mmcl_fast.errors import ConfigError, EngineRefusedError
from mmcl_fast.sweep.plan.axes import Axis, Value
from mmcl_fast.sweep.plan.columns import Codes, Column, combined, distinct_rows
from mmcl_fast.sweep.plan.modalities import advice
from mmcl_fast.sweep.plan.point_table import Points
from mmcl_fast.training.resolve import usable_device

STRENGTHS = SEEDS | {
    "mu_norm", "mu_b_norm", "nu_norm", "sigma_xi", "sigma_xi_b", "sigma_eps", "sigma_0", "tau",
    "eta",
}  # fmt: skip
SIZES = tuple(name for name in FIELD_NAMES if name not in STRENGTHS)
"""Settings by which an engine is chosen, and on which the cost of a run depends."""
RULE_READS: Mapping[str, tuple[str, ...]] = {
    "snr": ("sigma_xi", "d"),
    "n_snr2": ("n", "sigma_xi", "d"),
    "c_mu": ("mu_norm",),
    "noise_rate": ("n", "m", "tau", "sigma_xi", "d"),
    "noise_start": ("sigma_xi", "d"),
}
"""Settings from which a derived quantity determines another."""
# Defaults that depend on other settings.
DEFAULTS: Mapping[str, tuple[tuple[str, ...], Callable[[TrainConfig], Any]]] = {
    "tau": (("tau", "m", "objective", "similarity"), lambda cfg: cfg.tau_value),
    "d_b": (("d_b", "d"), lambda cfg: cfg.d_b_value),
    "sigma_xi_b": (("sigma_xi_b", "sigma_xi"), lambda cfg: cfg.sigma_xi_b_value),
    "d_c": (("d_c", "d", "mu_c_norm"), lambda cfg: _of_third(cfg, cfg.d_c_value)),
    "sigma_xi_c": (
        ("sigma_xi_c", "sigma_xi", "mu_c_norm"),
        lambda cfg: _of_third(cfg, cfg.sigma_xi_c_value),
    ),
    "probe_samples": (("probe_samples", "probe_on"), lambda cfg: cfg.probe_samples_value or None),
    "spurious_correlation_test": (SPURIOUS, test_correlation),
    "momentum": (
        ("momentum", "optimizer"),
        lambda cfg: cfg.momentum_value if cfg.optimizer == "momentum" else cfg.momentum,
    ),
}
Refused = ConfigError | EngineRefusedError


def _of_third(cfg: TrainConfig, value: Any) -> Any:
    """A setting of modality C, None where there is none."""
    return None if cfg.mu_c_norm is None else value


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
            **{name: default(cfg) for name, (_, default) in DEFAULTS.items()},
        }
        asked = {name: float(point[name] or 0.0) for name in DERIVED if name in point}
        return TrainConfig(**settings | settings_of(asked, settings))
    except (ConfigError, EngineRefusedError) as error:
        raise _at(error, point) from error


def resolve_points(base: TrainConfig, axes: Sequence[Axis]) -> tuple[Points, Codes]:
    """Different settings of all combinations of axis values, resolved as by `resolve_point`.

    Args:
        base: Settings that no axis sets.
        axes: The axes; seeds among them are left out, and those of the base stay.

    Returns: The points, in the order of the combinations, the last axis fastest; and the point of
        each combination.
    Raises: ConfigError, EngineRefusedError: naming a combination.
    """
    count = math.prod(len(axis.rows) for axis in axes)
    columns = {name: Column.constant(getattr(base, name), count) for name in FIELD_NAMES}
    asked: dict[str, Column] = {}
    for axis, codes in zip(axes, axis_codes(axes), strict=True):
        for name, values in zip(axis.names, zip(*axis.rows, strict=True), strict=True):
            if name in DERIVED:
                asked[name] = Column.of([float(v or 0.0) for v in values], codes)
            elif name not in SEEDS:
                columns[name] = Column.of(values, codes)
    try:
        _resolve(columns, asked)
    except _RefusedRowError as refused:
        hint = advice(str(refused.error).partition(":")[0], axes)
        raise _at(refused.error, combination(axes, refused.row), hint) from refused.error
    first, point_of = distinct_rows(list(columns.values()))
    points = Points(columns)
    return (points if len(first) == count else points.take(first)), point_of


def check_points(points: Points) -> None:
    """Check settings of which nothing is left to a default, as `TrainConfig` does.

    Raises: ConfigError: a setting is out of its range, or some exclude one another.
    """
    columns = {name: points.column(name) for name in FIELD_NAMES}
    try:
        _check_values(columns, FIELD_NAMES)
        _check_together(columns)
        _check_magnitudes(columns)
    except _RefusedRowError as refused:
        raise refused.error from None


def axis_codes(axes: Sequence[Axis]) -> Iterator[Codes]:
    """For each axis the index of its row in each combination, the last axis fastest."""
    count = math.prod(len(axis.rows) for axis in axes)
    repeats = count
    for axis in axes:
        repeats //= len(axis.rows)
        once = np.repeat(np.arange(len(axis.rows), dtype=np.int32), repeats)
        yield np.tile(once, count // len(once))


def combination(axes: Sequence[Axis], index: int) -> dict[str, Value]:
    """The axis values of a combination."""
    point: dict[str, Value] = {}
    for axis in reversed(axes):
        index, row = divmod(index, len(axis.rows))
        point = dict(zip(axis.names, axis.rows[row], strict=True)) | point
    return point


class _RefusedRowError(Exception):
    """The first row that a check refuses, and why."""

    def __init__(self, row: int, error: Refused) -> None:
        super().__init__(row, error)
        self.row, self.error = row, error


def _resolve(columns: dict[str, Column], asked: Mapping[str, Column]) -> None:
    """Resolve columns in place, in the order of `resolve_point`."""
    _check_values(columns, FIELD_NAMES)
    _check_together(columns)
    columns["device"] = _accepted(combined(_attempt(usable_device), [columns["device"]]))
    resolved = {"engine": _accepted(Points(columns).mapped(_attempt(resolve_engine), SIZES))}
    for name, (reads, default) in DEFAULTS.items():
        resolved[name] = Points(columns).mapped(default, reads)
    columns |= resolved
    targets = [DERIVED[name] for name in DERIVED if name in asked]
    for name, target in DERIVED.items():
        if name in asked:
            rule = _rule(name, target)
            columns[target] = combined(rule, [asked[name], *(columns[k] for k in RULE_READS[name])])
    _check_values(columns, targets)
    _check_magnitudes(columns)


def _rule(name: str, target: str) -> Callable[..., float]:
    def rule(value: float, *given: Any) -> float:
        return settings_of({name: value}, dict(zip(RULE_READS[name], given, strict=True)))[target]

    return rule


def _check_values(columns: Mapping[str, Column], names: Sequence[str]) -> None:
    for name in names:
        column = columns[name]
        found = map(_attempt(partial(checked_value, name)), column.values)
        _accepted(Column(tuple(found), column.codes))


def _check_together(columns: Mapping[str, Column]) -> None:
    _accepted(Points(columns).mapped(_attempt(check_combinations), COMBINED))


def _check_magnitudes(columns: Mapping[str, Column]) -> None:
    for magnitude in MAGNITUDES:
        read = [columns[name.removesuffix("_value")] for name in magnitude.reads]
        _accepted(combined(_attempt(magnitude.check), [columns["dtype"], *read]))


def _attempt(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with what it raises as its value."""

    def attempted(*given: Any) -> Any:
        try:
            return function(*given)
        except (ConfigError, EngineRefusedError) as error:
            return error

    return attempted


def _accepted(column: Column) -> Column:
    """The column, which has no error among its values; else the first row's is raised."""
    wrong = [k for k, value in enumerate(column.values) if isinstance(value, Refused)]
    if wrong:
        row = int(np.flatnonzero(np.isin(column.codes, wrong))[0])
        raise _RefusedRowError(row, column.values[column.codes[row]])
    return column


def _at(error: Refused, point: Mapping[str, Value], hint: str = "") -> Refused:
    where = ", ".join(f"{k} = {v}" for k, v in point.items())
    return type(error)(f"{error} (at {where}){hint}" if where else str(error))


__all__ = [
    "SIZES",
    "axis_codes",
    "check_points",
    "combination",
    "resolve_point",
    "resolve_points",
]

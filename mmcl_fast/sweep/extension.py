"""Comparing the plan of a store with the one that is asked for, and extending it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.axes import Axis, Value
from mmcl_fast.sweep.plan import Plan
from mmcl_fast.sweep.sharding import cut

SHOWN = 6


def same_runs(stored: Plan, asked: Plan) -> bool:
    """Whether both hold the same runs; where they are computed does not matter."""
    have, want = _keys(stored, asked)
    return len(have) == len(want) and bool(np.array_equal(_sorted(have), _sorted(want)))


def extend_plan(stored: Plan, asked: Plan) -> Plan:
    """The stored plan with the runs that only `asked` has appended; ids and shards stay.

    Raises: ConfigError: a stored run is not in `asked`, naming the difference.
    """
    have, want = _keys(stored, asked)
    known = {key.tobytes() for key in have}
    new = np.array([key.tobytes() not in known for key in want], bool)
    if len(want) - int(new.sum()) < len(have):
        raise ConfigError(
            f"extend: expected a plan with every run of the store, got one without some of them "
            f"({difference(stored, asked)})"
        )
    points = list(stored.points)
    index = {cfg: k for k, cfg in enumerate(points)}
    numerics = list(stored.numerics)
    renumbered = np.empty(len(asked.points), np.int32)
    for k, (cfg, how) in enumerate(zip(asked.points, asked.numerics, strict=True)):
        if cfg not in index:
            index[cfg] = len(points)
            points.append(cfg)
            numerics.append(how)
        renumbered[k] = index[cfg]
    point_of = renumbered[asked.point_of[new]]
    return Plan(
        tuple(points),
        np.concatenate([stored.point_of, point_of]),
        np.concatenate([stored.seeds, asked.seeds[new]]),
        np.concatenate([stored.shard_of, cut(points, point_of, stored.shards)]),
        _joined(stored.axes, asked.axes),
        tuple(numerics),
    )


def difference(stored: Plan, asked: Plan) -> str:
    """What differs between two plans, in one line."""
    told = []
    for name in TrainConfig.__dataclass_fields__:
        if name in ("seed", "data_seed", "init_seed"):
            continue
        have = {getattr(cfg, name) for cfg in stored.points}
        want = {getattr(cfg, name) for cfg in asked.points}
        if have != want:
            told.append(f"{name}: {_shown(have)} in the store, {_shown(want)} asked for")
    for column, name in enumerate(("data_seed", "init_seed"), start=1):
        have_seeds, want_seeds = (_span(plan.seeds[:, column]) for plan in (stored, asked))
        if have_seeds != want_seeds:
            told.append(f"{name}: {have_seeds} in the store, {want_seeds} asked for")
    if not told:
        told.append(f"{len(stored)} runs in the store, {len(asked)} other combinations asked for")
    return "; ".join(told)


def with_numerics_of(stored: Plan, asked: Plan) -> Plan:
    """The stored plan, with what decides the bits here where `asked` names the same point."""
    here = dict(zip(asked.points, asked.numerics, strict=True))
    return replace(
        stored,
        numerics=tuple(
            here.get(cfg, how) for cfg, how in zip(stored.points, stored.numerics, strict=True)
        ),
    )


def _keys(stored: Plan, asked: Plan) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Point, data_seed, init_seed of each run, points numbered alike in both."""
    index: dict[TrainConfig, int] = {}
    found = []
    for plan in (stored, asked):
        number = np.array([index.setdefault(cfg, len(index)) for cfg in plan.points], np.uint64)
        found.append(np.column_stack([number[plan.point_of], plan.seeds[:, 1:]]))
    return found[0], found[1]


def _sorted(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return keys[np.lexsort(keys.T)]


def _joined(stored: tuple[Axis, ...], asked: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Axes of both: values of the same axis one after the other, without repetition."""
    joined = {axis.names: axis for axis in stored}
    for axis in asked:
        rows = joined[axis.names].rows if axis.names in joined else ()
        joined[axis.names] = Axis(axis.names, tuple(dict.fromkeys((*rows, *axis.rows))))
    return tuple(joined.values())


def _shown(values: set[Value]) -> str:
    texts = [str(v) for v in sorted(values, key=lambda v: (isinstance(v, str), v is None, v or 0))]
    return ", ".join(texts if len(texts) <= SHOWN else [*texts[: SHOWN - 1], "...", texts[-1]])


def _span(seeds: npt.NDArray[np.uint64]) -> str:
    return f"{seeds.min()} .. {seeds.max()}"


__all__ = ["difference", "extend_plan", "same_runs", "with_numerics_of"]

"""Comparison of a stored plan with a requested one, and its extension."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.plan.axes import Value
from mmcl_fast.sweep.plan.plan import SEED_FIELDS, Plan
from mmcl_fast.sweep.plan.point_table import numbered, stacked_points
from mmcl_fast.sweep.plan.shards import cut

SHOWN = 6


def same_runs(stored: Plan, asked: Plan, *, anywhere: bool = False) -> bool:
    """Whether both plans hold the same runs, in any order.

    Args:
        stored: The store's plan.
        asked: The requested plan.
        anywhere: Ignore the device and the engine of each run.
    """
    if len(stored) != len(asked) or stored.metrics != asked.metrics:
        return False
    if stored.points == asked.points and all(
        np.array_equal(have, want)
        for have, want in (
            (stored.point_of, asked.point_of),
            (stored.seeds[:, 1:], asked.seeds[:, 1:]),
        )
    ):
        return True  # a repeated command; sorting 10^6 runs takes a second
    have, want = _numbered(stored, asked, anywhere=anywhere)
    return bool(np.array_equal(np.sort(have), np.sort(want)))


def extend_plan(stored: Plan, asked: Plan) -> Plan:
    """The stored plan, with the runs that only `asked` has appended; ids and shards stay.

    Raises: ConfigError: a stored run is not in `asked`, naming the difference.
    """
    if stored.metrics != asked.metrics:
        raise ConfigError(
            f"extend: expected a plan with the store's metrics, got another "
            f"({difference(stored, asked)})"
        )
    have, want = _numbered(stored, asked)
    new = ~np.isin(want, have)
    if len(want) - int(new.sum()) < len(have):
        raise ConfigError(
            f"extend: expected a plan with every run of the store, got one without some of them "
            f"({difference(stored, asked)}); give --extend the whole grid, or repeat --add if "
            "another command has added them meanwhile"
        )
    _, want_points = numbered(stored.points, asked.points)
    # Numbers of the store's points are their places, as they differ.
    added, first = np.unique(want_points, return_index=True)
    is_new = added >= len(stored.points)
    new_points = asked.points.take(first[is_new])
    points = stacked_points(stored.points, new_points) if len(new_points) else stored.points
    numerics = (*stored.numerics, *(asked.numerics[k] for k in first[is_new].tolist()))
    point_of = want_points[asked.point_of[new]]
    combination_of = asked.combination_of
    if combination_of is not None:
        order = np.argsort(want)
        stored_in_asked = order[np.searchsorted(want, have, sorter=order)]
        combination_of = np.concatenate([combination_of[stored_in_asked], combination_of[new]])
    return Plan(
        points,
        np.concatenate([stored.point_of, point_of]),
        np.concatenate([stored.seeds, asked.seeds[new]]),
        np.concatenate(
            [stored.shard_of, cut(points, point_of, stored.shards, metrics=len(stored.metrics))]
        ),
        asked.axes,  # every stored run is one of `asked`, so it lies on these axes
        numerics,
        combination_of,
        stored.metrics,
        asked.recipe,
    )


def difference(stored: Plan, asked: Plan) -> str:
    """The differences between two plans, in one line."""
    differences = []
    for name in TrainConfig.__dataclass_fields__:
        if name in SEED_FIELDS:
            continue
        have, want = (set(plan.points.values(name)) for plan in (stored, asked))
        if have != want:
            differences.append(
                f"{name}: {_shown(have - want)} only in the store, {_shown(want - have)} only "
                "asked for"
            )
    for column, name in enumerate(SEED_FIELDS[1:], start=1):
        have_seeds, want_seeds = (_span(plan.seeds[:, column]) for plan in (stored, asked))
        if have_seeds != want_seeds:
            differences.append(f"{name}: {have_seeds} in the store, {want_seeds} asked for")
    if stored.metrics != asked.metrics:
        have_paths, want_paths = (
            ", ".join(f"{name} = {path}" for name, path in plan.metrics) or "none"
            for plan in (stored, asked)
        )
        differences.append(f"metrics: {have_paths} in the store, {want_paths} asked for")
    if not differences:
        differences.append(
            f"{len(stored)} runs in the store, {len(asked)} other combinations asked for"
        )
    return "; ".join(differences)


def _numbered(
    stored: Plan, asked: Plan, *, anywhere: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A number for each run of both plans; equal runs (settings, data and init seed) share one."""
    numbers = numbered(stored.points, asked.points, ("device", "engine") if anywhere else ())
    keys = [
        np.column_stack([number.astype(np.uint64)[plan.point_of], plan.seeds[:, 1:]])
        for plan, number in zip((stored, asked), numbers, strict=True)
    ]
    both = np.concatenate(keys)
    order = np.lexsort(both.T)
    changes = (both[order[1:]] != both[order[:-1]]).any(axis=1)
    run_numbers = np.empty(len(both), np.int64)
    run_numbers[order] = np.concatenate([[0], np.cumsum(changes)])
    return run_numbers[: len(stored)], run_numbers[len(stored) :]


def _shown(values: set[Value]) -> str:
    if not values:
        return "nothing"
    texts = [str(v) for v in sorted(values, key=lambda v: (isinstance(v, str), v is None, v or 0))]
    return ", ".join(texts if len(texts) <= SHOWN else [*texts[: SHOWN - 1], "...", texts[-1]])


def _span(seeds: npt.NDArray[np.uint64]) -> str:
    return f"{seeds.min()} .. {seeds.max()}"


__all__ = ["difference", "extend_plan", "same_runs"]

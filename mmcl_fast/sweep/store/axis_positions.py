"""Axis positions of runs, reconstructed from their settings for plan files of version 0.1.0.

Later plan files store them (`Plan.combination_of`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmcl_fast.derived import DERIVED, derived
from mmcl_fast.errors import DataError
from mmcl_fast.sweep.plan.axes import Axis, Value
from mmcl_fast.sweep.plan.plan import SEED_FIELDS, Plan
from mmcl_fast.sweep.plan.point_table import Points
from mmcl_fast.sweep.store.schema import DERIVED_READS

TOLERANCE = 1e-9  # relative, of derived values recomputed from settings
RESOLVED = (None, "auto")  # values that a plan resolves at each point
NOT_ON_AXIS, UNDEFINED = -1, -2  # codes of a value that is not on the axis; of NaN


def reconstruct_combinations(plan: Plan) -> npt.NDArray[np.int64]:
    """`Plan.combination_of` of a plan without it, [runs].

    Raises: DataError: a run is at none of an axis' values.
    """
    combination = np.zeros(len(plan), np.int64)
    for axis in plan.axes:
        combination = combination * len(axis.rows) + position(axis, plan)
    return combination


def position(axis: Axis, plan: Plan) -> npt.NDArray[np.int64]:
    """Index of each run along an axis, [runs].

    Raises: DataError: a run is at none of the axis' values.
    """
    by_run = any(name in SEED_FIELDS for name in axis.names)
    codes, known = [], []
    for name, values in zip(axis.names, zip(*axis.rows, strict=True), strict=True):
        distinct = [v for v in dict.fromkeys(values) if v not in RESOLVED]
        value_codes = _value_codes(name, distinct, plan)
        per_point = name not in SEED_FIELDS
        codes.append(value_codes[plan.point_of] if by_run and per_point else value_codes)
        known.append({value: k for k, value in enumerate(distinct)})
    rows = [
        tuple(k.get(v, NOT_ON_AXIS) for k, v in zip(known, row, strict=True)) for row in axis.rows
    ]
    shape = [len(k) + 2 for k in known]
    cells = np.ravel_multi_index(tuple(x - UNDEFINED for x in codes), shape)
    different, index = np.unique(cells, return_inverse=True)
    exact = {row: k for k, row in enumerate(rows) if NOT_ON_AXIS not in row}
    indices = []
    for cell in different:
        observed = tuple(int(x) + UNDEFINED for x in np.unravel_index(cell, shape))
        row = exact.get(observed)
        indices.append(_compatible(observed, rows, axis) if row is None else row)
    along = np.array(indices, np.int64)[index]
    return along if by_run else along[plan.point_of]


def _value_codes(name: str, distinct: list[Value], plan: Plan) -> npt.NDArray[np.int64]:
    """Index among the distinct values of each point; of a seed, of each run."""
    if name in DERIVED:
        return _nearest(_derived(name, plan.points), np.array(distinct, float))
    known = {value: k for k, value in enumerate(distinct)}
    if name in SEED_FIELDS:
        seeds, index = np.unique(plan.seeds[:, SEED_FIELDS.index(name)], return_inverse=True)
        return np.array([known.get(int(seed), NOT_ON_AXIS) for seed in seeds], np.int64)[index]
    column = plan.points.column(name)
    places = np.array([known.get(value, NOT_ON_AXIS) for value in column.values], np.int64)
    return places[column.codes]


def _derived(name: str, points: Points) -> npt.NDArray[np.float64]:
    column = points.mapped(lambda cfg: derived(cfg)[name], DERIVED_READS[name])
    return np.array(column.values)[column.codes]


def _nearest(
    given: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    order = np.argsort(values)
    ordered = values[order]
    right = np.clip(np.searchsorted(ordered, given), 0, len(values) - 1)
    left = np.maximum(right - 1, 0)
    closer = np.where(np.abs(ordered[left] - given) < np.abs(ordered[right] - given), left, right)
    near = np.abs(ordered[closer] - given) <= TOLERANCE * np.abs(given)
    return np.where(np.isnan(given), UNDEFINED, np.where(near, order[closer], NOT_ON_AXIS))


def _compatible(observed: tuple[int, ...], rows: list[tuple[int, ...]], axis: Axis) -> int:
    """First row of the axis that agrees with the observed codes where both are defined."""
    for k, row in enumerate(rows):
        if all(x in (y, UNDEFINED) or y == NOT_ON_AXIS for x, y in zip(observed, row, strict=True)):
            return k
    raise DataError(
        f"{', '.join(axis.names)}: expected every run at one of the axis' values, got others"
    )


__all__ = ["position", "reconstruct_combinations"]

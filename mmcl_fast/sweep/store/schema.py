"""Columns of plans and parts: settings, derived quantities, results; their Arrow types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcl_fast.config import FIELD_NAMES, LATER_FIELDS, TrainConfig
from mmcl_fast.derived import derived
from mmcl_fast.sweep.plan.columns import Column
from mmcl_fast.sweep.plan.plan import SEED_FIELDS, Plan

CURVES = ("loss", "ood_accuracy", "signal", "noise")
STATUSES = ("finished", "diverged", "failed")


@dataclass(frozen=True)
class Rows:
    """Results of a shard.

    Attributes:
        table: One row a run, in the order of run ids.
        tracebacks: Of failed runs, by run id.
        seconds: Time in training.
    """

    table: pa.Table
    tracebacks: dict[int, str]
    seconds: float


def _setting_type(name: str) -> pa.DataType:
    hint = get_type_hints(TrainConfig)[name]
    kinds = get_args(hint) or (hint,)
    if name in SEED_FIELDS:
        return pa.uint64()
    if float in kinds:
        return pa.float64()
    return pa.int64() if int in kinds else pa.string()


SETTING_TYPES = {name: _setting_type(name) for name in FIELD_NAMES}
DERIVED_READS: Mapping[str, tuple[str, ...]] = {
    "snr": ("mu_norm", "sigma_xi", "d"),
    "n_snr2": ("n", "mu_norm", "sigma_xi", "d"),
    "c_mu": ("mu_b_norm", "mu_norm"),
    "noise_rate": ("eta", "sigma_xi", "d", "n", "m", "tau"),
    "noise_start": ("sigma_0", "sigma_xi", "d"),
}
"""Settings that each derived quantity is a function of."""
DERIVED_NAMES = tuple(DERIVED_READS)


def setting_columns(
    plan: Plan, runs: npt.NDArray[np.int64], *, encoded: bool = False
) -> dict[str, pa.Array]:
    """Columns run_id, settings and derived quantities of the given runs.

    Args:
        plan: The plan.
        runs: Ids of the runs.
        encoded: Settings and quantities as dictionaries, which hold each value once. Parquet files
            have the same columns; they are written several times as fast.
    """
    used, index = np.unique(plan.point_of[runs], return_inverse=True)
    points = plan.points.take(used)
    taken = _encoded if encoded else _taken
    columns: dict[str, pa.Array] = {"run_id": pa.array(runs, pa.int64())}
    for name, kind in SETTING_TYPES.items():
        if name in SEED_FIELDS:
            columns[name] = pa.array(plan.seeds[runs, SEED_FIELDS.index(name)], kind)
        else:
            columns[name] = taken(points.column(name), index, kind)
    for name, reads in DERIVED_READS.items():
        quantity = points.mapped(lambda cfg, name=name: derived(cfg)[name], reads)
        columns[name] = taken(quantity, index, pa.float64())
    return columns


def _taken(column: Column, index: npt.NDArray[np.int64], kind: pa.DataType) -> pa.Array:
    if len(column.values) == 1:
        return pa.repeat(pa.scalar(column.values[0], kind), len(index))
    return pa.array(column.values, kind).take(pa.array(column.codes[index]))


def _encoded(column: Column, index: npt.NDArray[np.int64], kind: pa.DataType) -> pa.Array:
    if len(column.values) == 1 and column.values[0] is not None:
        codes = pa.repeat(pa.scalar(0, pa.int32()), len(index))
        return pa.DictionaryArray.from_arrays(codes, pa.array(column.values, kind))
    codes = column.codes[index]
    is_null = np.array([value is None for value in column.values])[codes]
    # Parquet has no nulls in dictionaries: rows are null instead, and their values are not used.
    values = pa.array(column.values, kind).fill_null(_zero(kind))
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=is_null), values)


def _zero(kind: pa.DataType) -> pa.Scalar:
    return pa.scalar("" if pa.types.is_string(kind) else 0, kind)


def part_schema(dtype: str, metrics: Sequence[str] = ()) -> pa.Schema:
    """Schema of a part whose curves have the given floating-point type; metrics are float64."""
    curve = pa.list_(pa.float32() if dtype == "float32" else pa.float64())
    fields: list[tuple[str, Any]] = [("run_id", pa.int64()), *SETTING_TYPES.items()]
    fields += [(name, pa.float64()) for name in DERIVED_NAMES]
    fields += [("status", pa.string()), ("diverged_at", pa.int32()), ("error", pa.string())]
    fields += [(f"final_{name}", pa.float64()) for name in CURVES]
    fields += [(name, curve) for name in CURVES]
    fields += [(f"final_{name}", pa.float64()) for name in metrics]
    fields += [(name, pa.list_(pa.float64())) for name in metrics]
    fields += [("computed_on", pa.string())]
    return pa.schema(fields)


def with_later_columns(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """A table of any version with columns of the settings among `names` that it lacks.

    Their values are those that files without them mean.
    """
    for name in names:
        if name in LATER_FIELDS and name not in table.column_names:
            values = pa.array([LATER_FIELDS[name]] * len(table), SETTING_TYPES[name])
            table = table.append_column(name, values)
    return table


def list_column(rows: Sequence[npt.NDArray[np.floating] | None], kind: pa.ListType) -> pa.Array:
    """Curves as a list column; None is a null."""
    lengths = np.array([0 if row is None else len(row) for row in rows])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    given = [row for row in rows if row is not None]
    values = np.concatenate(given) if given else np.empty(0)
    is_null = np.array([row is None for row in rows], bool)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(values, kind.value_type), mask=pa.array(is_null)
    ).cast(kind)


__all__ = [
    "CURVES",
    "DERIVED_NAMES",
    "DERIVED_READS",
    "SETTING_TYPES",
    "STATUSES",
    "Rows",
    "list_column",
    "part_schema",
    "setting_columns",
    "with_later_columns",
]

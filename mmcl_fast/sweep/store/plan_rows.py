"""The rows of a plan's file, in blocks: as a whole, 10^7 runs with every setting take gigabytes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmcl_fast.sweep.plan.axes import Axis
from mmcl_fast.sweep.plan.columns import Column
from mmcl_fast.sweep.plan.plan import SEED_FIELDS, Plan, Recipe
from mmcl_fast.sweep.plan.point_table import Points
from mmcl_fast.sweep.plan.points import check_points
from mmcl_fast.sweep.store.arrow_arrays import from_numpy, to_numpy
from mmcl_fast.sweep.store.parquet_file import parquet_writer
from mmcl_fast.sweep.store.schema import SETTING_TYPES, setting_columns, with_later_columns

BLOCK_ROWS = 1 << 20
NUMERICS = "numerics"
OF_RUNS = ("run_id", *SEED_FIELDS, "combination")  # no value occurs often enough for a dictionary
SETTINGS = tuple(name for name in SETTING_TYPES if name not in SEED_FIELDS)


def write_rows(plan: Plan, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write one row per run, with our metadata and a digest."""
    blocks = _blocks(plan)
    first = next(blocks)
    names = first.column_names
    encoded = [name for name in names if name not in OF_RUNS]
    options: dict[str, Any] = {
        "use_dictionary": encoded,
        "column_encoding": {name: "DELTA_BINARY_PACKED" for name in OF_RUNS if name in names},
        "write_statistics": [name for name in names if name not in SEED_FIELDS],
    }
    schema = first.schema
    with parquet_writer(path, schema, metadata, store_schema=False, **options) as writer:
        for block in chain([first], blocks):
            writer.write_table(block)


def _blocks(plan: Plan) -> Iterator[pa.Table]:
    kinds = {how: k for k, how in enumerate(dict.fromkeys(plan.numerics))}
    numerics_of_point = np.array([kinds[how] for how in plan.numerics], np.int32)
    for start in range(0, len(plan), BLOCK_ROWS):
        runs = np.arange(start, min(start + BLOCK_ROWS, len(plan)), dtype=np.int64)
        columns = setting_columns(plan, runs, encoded=True)
        columns["shard"] = pa.array(plan.shard_of[runs], pa.int32())
        columns["point"] = pa.array(plan.point_of[runs], pa.int32())
        if plan.combination_of is not None:
            columns["combination"] = pa.array(plan.combination_of[runs], pa.int64())
        columns[NUMERICS] = pa.DictionaryArray.from_arrays(
            pa.array(numerics_of_point[plan.point_of[runs]]), pa.array(list(kinds))
        )
        yield pa.table(columns)


def read_rows(file: pq.ParquetFile, metadata: Mapping[str, Any], *, has_digest: bool) -> Plan:
    """The plan in a file.

    Args:
        file: The open file.
        metadata: Its JSON.
        has_digest: The footer was compared with its digest. Only then are columns described by it:
            pyarrow (26) aborts the process where it describes a column of a damaged footer.

    Raises: ValueError, KeyError, TypeError, IndexError, pyarrow's errors: no valid plan.
    """
    names = [*SEED_FIELDS, "shard", "point"]
    has_combinations = "combination" in file.schema_arrow.names
    if has_combinations:
        names.append("combination")
    table = file.read(names, use_threads=False)  # as `OpenParquet.read`
    of_runs = {name: to_numpy(table[name]) for name in table.column_names}
    point_of = of_runs["point"]
    first = np.full(int(point_of.max(initial=-1)) + 1, -1, np.int64)
    first[point_of[::-1]] = np.arange(len(point_of) - 1, -1, -1)
    if not len(first) or first.min() < 0:
        raise ValueError("points that no run has")
    # Most settings are the same in all runs: to read 10^6 of each takes half a second.
    equal = _constants(file.metadata) if has_digest else {}
    rows = _settings(file, first, equal.keys())
    columns = {name: Column.constant(value, len(first)) for name, value in equal.items()}
    columns |= {name: _column(rows[name]) for name in rows.column_names}
    columns |= {name: Column.constant(0, len(first)) for name in SEED_FIELDS}
    numerics = columns[NUMERICS]
    points = Points(columns)
    check_points(points)
    return Plan(
        points,
        point_of,
        np.column_stack([of_runs[name] for name in SEED_FIELDS]),
        of_runs["shard"],
        tuple(Axis(tuple(names), tuple(map(tuple, rows))) for names, rows in metadata["axes"]),
        tuple(map(numerics.values.__getitem__, numerics.codes.tolist())),
        of_runs.get("combination"),
        tuple((str(name), str(path)) for name, path in metadata.get("metrics", [])),
        Recipe.of(metadata.get("recipe")),
    )


def _settings(
    file: pq.ParquetFile, first: npt.NDArray[np.int64], known: Collection[str]
) -> pa.Table:
    """Settings and arithmetic of each point that are not known, from its first row."""
    tables, start = [], 0
    # Plans of earlier versions lack some settings.
    stored = [name for name in (*SETTINGS, NUMERICS) if name in file.schema_arrow.names]
    read = [name for name in stored if name not in known] or [NUMERICS]
    order = np.argsort(first)
    ascending = first[order]
    for group, size in enumerate(_group_sizes(file)):
        rows = ascending[(ascending >= start) & (ascending < start + size)] - start
        if len(rows):
            block = file.read_row_group(group, read, use_threads=False).take(from_numpy(rows))
            later = [name for name in SETTINGS if name not in known]
            tables.append(with_later_columns(block, later))
        start += size
    back = np.empty(len(first), np.int64)
    back[order] = np.arange(len(first))
    return pa.concat_tables(tables).unify_dictionaries().take(from_numpy(back))


def _group_sizes(file: pq.ParquetFile) -> Iterator[int]:
    for group in range(file.metadata.num_row_groups):
        yield file.metadata.row_group(group).num_rows


def _constants(footer: pq.FileMetaData) -> dict[str, Any]:
    """Settings that are the same in all rows of a plan, by the statistics of their columns."""
    found: dict[str, Any] = {}
    varies = set(footer.schema.names) - {*SETTINGS, NUMERICS}
    for k in range(footer.num_row_groups):
        group = footer.row_group(k)
        for j in range(group.num_columns):
            column = group.column(j)
            name, known = column.path_in_schema, column.statistics
            if name in varies:
                continue
            # Statistics of Parquet do not tell 0 from -0.
            if (
                known is not None
                and known.has_min_max
                and known.null_count == 0
                and known.min == known.max != 0
                and found.setdefault(name, known.min) == known.min
            ):
                continue
            varies.add(name)
    return {name: value for name, value in found.items() if name not in varies}


def _column(values: pa.ChunkedArray) -> Column:
    whole = values.combine_chunks()
    if not isinstance(whole.type, pa.DictionaryType):
        whole = pc.dictionary_encode(whole, null_encoding="encode")
    return Column.of(whole.dictionary.to_pylist(), to_numpy(whole.indices))


__all__ = ["read_rows", "write_rows"]

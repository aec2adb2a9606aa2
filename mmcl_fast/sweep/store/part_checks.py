"""What a part must agree in with the plan, beside being undamaged: sizes, run ids, settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.store.plan_file import Outline
from mmcl_fast.sweep.store.schema import CURVES, SETTING_TYPES, STATUSES, setting_columns

ROW_BYTES = 1 << 20  # most that a row takes unpacked, beside its curves: long error texts
# Rows computed elsewhere with --allow-other-engine have these of the machine that did.
OF_MACHINE = ("engine", "device")


def check_counts(counts: Mapping[str, int], rows: int) -> None:
    """Raise ValueError unless rows by status are of known statuses and sum to the rows."""
    for status, count in counts.items():
        if status not in STATUSES or isinstance(count, bool) or not isinstance(count, int):
            raise ValueError(f"{count} rows of status {status!r}")
    if sum(counts.values()) != rows or min(counts.values(), default=0) < 0:
        raise ValueError(f"counts {dict(counts)} of {rows} rows")


def check_provenance(metadata: Mapping[str, Any]) -> None:
    """Raise ValueError where what a part says of its making has impossible types or values."""
    seconds, finished, attempt = (float(metadata[k]) for k in ("seconds", "finished", "attempt"))
    if not (math.isfinite(finished) and 0 <= seconds < math.inf and 1 <= attempt < math.inf):
        raise ValueError(f"seconds {seconds}, finished {finished}, attempt {attempt}")
    made = metadata.get("environment", {})
    if not isinstance(made, dict):
        raise ValueError(f"an environment that is a {type(made).__name__}")
    for name, value in {**made, "commit": metadata.get("commit")}.items():
        if not isinstance(value, str | int | None):
            raise ValueError(f"{name} that is a {type(value).__name__}")


def check_unpacked(footer: pq.FileMetaData, plan: Plan | Outline, *, has_digest: bool) -> None:
    """Raise ValueError where a part would unpack to more than the plan's runs have.

    A few kilobytes can hold 10^8 equal numbers.

    Args:
        footer: Footer of the part.
        plan: The plan.
        has_digest: The footer was compared with its digest. The values of each column are counted
            only then: pyarrow (26) aborts the process where it describes a column of a damaged
            footer.
    """
    if plan.most_epochs is None:
        return
    longest = plan.most_epochs + 1
    curves = (*CURVES, *plan.metric_names)
    groups = [footer.row_group(k) for k in range(footer.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    allowed = footer.num_rows * (len(curves) * longest * 8 + ROW_BYTES)
    if unpacked > allowed:
        raise ValueError(f"{unpacked} bytes when unpacked, where at most {allowed} can be")
    if not has_digest:
        return
    for group in groups:
        for j in range(group.num_columns):
            column = group.column(j)
            most = longest if column.path_in_schema.partition(".")[0] in curves else 1
            if column.num_values > group.num_rows * most:
                raise ValueError(
                    f"{column.num_values} values of {column.path_in_schema} in {group.num_rows} "
                    f"rows of at most {most}"
                )


def check_rows(table: pa.Table, shard: int, counts: Mapping[str, int], plan: Outline) -> None:
    """Raise ValueError where the rows are of other runs than the plan's, or of other counts.

    Args:
        table: The part's columns that were read, run_id among them.
        shard: The shard.
        counts: Rows by status as the metadata say.
        plan: The plan.
    """
    runs = plan.runs_of(shard)
    if runs is not None and not np.array_equal(table["run_id"].to_numpy(), runs):
        raise ValueError(f"run_id of other runs than those of shard {shard}")
    if "status" in table.column_names:
        found = {x["values"]: x["counts"] for x in table["status"].value_counts().to_pylist()}
        if found != {status: count for status, count in counts.items() if count}:
            raise ValueError(f"rows of status {found}, not {dict(counts)}")


def check_types(found: pa.Schema, expected: pa.Schema) -> None:
    """Raise ValueError where a column has another type than the plan's rows have.

    Curves may be float32 in a part that was written before the plan was extended to float64.
    """
    for field in expected:
        kind = found.field(field.name).type
        older = pa.types.is_list(field.type) and kind == pa.list_(pa.float32())
        if kind != field.type and not older:
            raise ValueError(f"{field.name} of type {kind}, not {field.type}")


def check_settings(table: pa.Table, shard: int, plan: Plan) -> None:
    """Raise ValueError where a row has another setting or seed than its run in the plan."""
    expected = setting_columns(plan, plan.runs_of(shard))
    for name in SETTING_TYPES:
        if name in OF_MACHINE:
            continue
        if table[name].combine_chunks().to_pylist() != expected[name].to_pylist():
            raise ValueError(f"{name} of other runs than those of shard {shard}")


__all__ = [
    "check_counts",
    "check_provenance",
    "check_rows",
    "check_settings",
    "check_types",
    "check_unpacked",
]

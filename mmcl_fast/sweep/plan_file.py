"""A plan on disk: `plan.parquet`, one row a run, readable by anything that reads Parquet."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmcl_fast.config import FIELD_NAMES, TrainConfig
from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.files import write_atomically
from mmcl_fast.sweep.axes import Axis
from mmcl_fast.sweep.columns import setting_columns
from mmcl_fast.sweep.plan import SCHEMA, SEED_FIELDS, Plan

PLAN_FILE = "plan.parquet"
KEY = b"mmcl"  # of our JSON in a file's metadata


def write_plan(plan: Plan, store: Path, *, replace: bool = False) -> bool:
    """Write a plan; with `replace`, over an older one.

    Returns: False if another process has written one in the meantime; then it stays.
    """
    runs = np.arange(len(plan), dtype=np.int64)
    columns = setting_columns(plan, runs)
    columns["shard"] = pa.array(plan.shard_of, pa.int32())
    columns["point"] = pa.array(plan.point_of, pa.int32())
    told = {
        "schema": SCHEMA,
        "digest": plan.digest,
        "axes": [[list(axis.names), [list(row) for row in axis.rows]] for axis in plan.axes],
        "numerics": list(plan.numerics),
    }
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(told)})

    def write(path: Path) -> None:
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)

    final = store / PLAN_FILE
    if replace:
        write_atomically(final, write)
        return True
    # A link, unlike a rename, fails where another process was first.
    ours = write_atomically(store / f".{PLAN_FILE}.{os.getpid()}", write)
    try:
        os.link(ours, final)
    except FileExistsError:
        return False
    finally:
        ours.unlink()
    return True


def read_plan(store: Path) -> Plan:
    """The plan of a store.

    Raises: OutputError: there is none, or it cannot be read. ConfigError: another format version.
    """
    path = store / PLAN_FILE
    if not path.exists():
        raise OutputError(f"store: expected a directory with {PLAN_FILE}, got {str(store)!r}")
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        told = json.loads(table.schema.metadata[KEY])
        if told["schema"] != SCHEMA:
            raise ConfigError(
                f"{PLAN_FILE}: expected a store of format {SCHEMA}, got {told['schema']}; take "
                "another --out, or the version of mmcl-fast that wrote it"
            )
        plan = _plan(table, told)
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise OutputError(
            f"{PLAN_FILE}: expected a readable plan, got {str(path)!r} ({error})"
        ) from error
    if plan.digest != told["digest"]:
        raise OutputError(f"{PLAN_FILE}: expected the runs that its hash names, got others")
    return plan


def _plan(table: pa.Table, told: dict[str, Any]) -> Plan:
    point_of = table["point"].to_numpy()
    _, first = np.unique(point_of, return_index=True)
    rows = table.select(list(FIELD_NAMES)).take(pa.array(first)).to_pylist()
    points = tuple(TrainConfig(**row | dict.fromkeys(SEED_FIELDS, 0)) for row in rows)
    axes = tuple(Axis(tuple(names), tuple(map(tuple, rows))) for names, rows in told["axes"])
    return Plan(
        points,
        point_of,
        np.column_stack([table[name].to_numpy() for name in SEED_FIELDS]),
        table["shard"].to_numpy(),
        axes,
        tuple(told["numerics"]),
    )


__all__ = ["KEY", "PLAN_FILE", "read_plan", "write_plan"]

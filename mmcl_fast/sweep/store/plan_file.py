"""A plan on disk: `plan.parquet`, one row per run."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmcl_fast.config import FIELD_NAMES, TrainConfig
from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.files import write_atomically
from mmcl_fast.sweep.plan.axes import Axis
from mmcl_fast.sweep.plan.plan import SCHEMA, SEED_FIELDS, Plan, Recipe
from mmcl_fast.sweep.store.place import PLAN_FILE, require_plan
from mmcl_fast.sweep.store.schema import setting_columns, with_later_columns

KEY = b"mmcl"  # of the JSON in a file's metadata
READ_ERRORS = (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException)


@dataclass(frozen=True)
class Outline:
    """Identity of a plan's parts, read from the file's footer alone: quick for 10^6 runs.

    Attributes:
        runs: Runs of the plan.
        dtype: See `Plan.dtype`.
        digests: Hash of each shard's runs.
        sizes: Number of each shard's runs.
        metric_names: Names of the own metrics.
        swept: Names of the swept settings.
    """

    runs: int
    dtype: str
    digests: tuple[str, ...]
    sizes: tuple[int, ...]
    metric_names: tuple[str, ...] = ()
    swept: tuple[str, ...] = ()

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.sizes)

    def shard_size(self, shard: int) -> int:
        """Number of a shard's runs."""
        return self.sizes[shard]

    def shard_digest(self, shard: int) -> str:
        """Hash of a shard's runs."""
        return self.digests[shard]


def write_plan(plan: Plan, store: Path, *, replace: bool = False) -> bool:
    """Write a plan; with `replace`, over an older one.

    Returns: False if another process wrote one in the meantime, which stays.
    Raises: OutputError: the plan cannot be written.
    """
    columns = setting_columns(plan, np.arange(len(plan), dtype=np.int64))
    columns["shard"] = pa.array(plan.shard_of, pa.int32())
    columns["point"] = pa.array(plan.point_of, pa.int32())
    point_of = columns["point"]
    if plan.combination_of is not None:
        columns["combination"] = pa.array(plan.combination_of, pa.int64())
    columns["numerics"] = pa.array(plan.numerics).dictionary_encode().take(point_of)
    metadata = {
        "schema": SCHEMA,
        "digest": plan.digest,
        "axes": [[list(axis.names), [list(row) for row in axis.rows]] for axis in plan.axes],
        "dtype": plan.dtype,
        "metrics": [list(pair) for pair in plan.metrics],
        "recipe": None if plan.recipe is None else plan.recipe.to_dict(),
        "shard_digests": [plan.shard_digest(k) for k in range(plan.shards)],
        "shard_sizes": np.bincount(plan.shard_of).tolist(),
    }
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(metadata)})

    def write(path: Path) -> None:
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)

    final = store / PLAN_FILE
    if replace:
        write_atomically(final, write)
        return True
    # A link, unlike a rename, fails if another process (on any node) was first.
    temporary = write_atomically(store / f".{secrets.token_hex(8)}.{PLAN_FILE}", write)
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(f"{PLAN_FILE}: cannot be written to {store} ({error})") from error
    finally:
        temporary.unlink()
    return True


def read_plan(store: Path) -> Plan:
    """Read the plan of a store.

    Raises: OutputError: the store has no plan, or it cannot be read. ConfigError: another format
        version.
    """
    path = require_plan(store)
    with _readable(path):
        table = pq.read_table(path, page_checksum_verification=True)
        metadata = json.loads(table.schema.metadata[KEY])
        schema = metadata["schema"]
    _check_schema(schema)
    with _readable(path):
        plan, expected = _plan(table, metadata), metadata["digest"]
    if plan.digest != expected:
        raise OutputError(f"{PLAN_FILE}: expected runs of the stored hash, got others")
    return plan


def read_outline(store: Path) -> Outline:
    """Read the outline of a store's plan, without its runs.

    Raises: OutputError: the store has no plan, or it cannot be read. ConfigError: another format
        version.
    """
    path = require_plan(store)
    with _readable(path):
        footer = pq.read_metadata(path)
        metadata = json.loads(footer.metadata[KEY])
        schema = metadata["schema"]
    _check_schema(schema)
    with _readable(path):
        return Outline(
            footer.num_rows,
            str(metadata["dtype"]),
            tuple(metadata["shard_digests"]),
            tuple(metadata["shard_sizes"]),
            tuple(name for name, _ in metadata.get("metrics", [])),
            tuple(name for names, _ in metadata["axes"] for name in names),
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except READ_ERRORS as error:
        raise OutputError(
            f"{PLAN_FILE}: expected a readable plan, got {str(path)!r} ({error})"
        ) from error


def _check_schema(schema: object) -> None:
    if schema != SCHEMA:
        raise ConfigError(
            f"{PLAN_FILE}: expected a store of format {SCHEMA}, got {schema}; use another --out, "
            "or the version of mmcl-fast that wrote it"
        )


def _plan(table: pa.Table, metadata: dict[str, Any]) -> Plan:
    point_of = table["point"].to_numpy()
    used, first = np.unique(point_of, return_index=True)
    if not np.array_equal(used, np.arange(len(used))):
        raise ValueError("points that no run has")
    table = with_later_columns(table, FIELD_NAMES)
    rows = table.select([*FIELD_NAMES, "numerics"]).take(pa.array(first)).to_pydict()
    numerics = rows.pop("numerics")
    rows |= dict.fromkeys(SEED_FIELDS, [0] * len(first))
    points = tuple(
        TrainConfig(**dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)
    )
    axes = tuple(Axis(tuple(names), tuple(map(tuple, rows))) for names, rows in metadata["axes"])
    return Plan(
        points,
        point_of,
        np.column_stack([table[name].to_numpy() for name in SEED_FIELDS]),
        table["shard"].to_numpy(),
        axes,
        tuple(numerics),
        table["combination"].to_numpy() if "combination" in table.column_names else None,
        tuple((str(name), str(path)) for name, path in metadata.get("metrics", [])),
        Recipe.of(metadata.get("recipe")),
    )


__all__ = [
    "KEY",
    "PLAN_FILE",
    "READ_ERRORS",
    "Outline",
    "read_outline",
    "read_plan",
    "write_plan",
]

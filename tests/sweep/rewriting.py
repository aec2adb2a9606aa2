"""Files of a store with other rows or metadata than were written."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmcl_fast.sweep.store.parquet_file import KEY, STATED, write_parquet


def rewrite(path: Path, table: pa.Table | None = None, **changes: object) -> None:
    """Write a file anew with a digest of what it then holds, as nobody does by accident."""
    whole = pq.read_table(path)
    told = json.loads(whole.schema.metadata[KEY]) | changes
    write_parquet(whole if table is None else table, path, told)


def rewrite_without_digest(path: Path, table: pa.Table | None = None, **changes: object) -> None:
    """Write a file anew as version 0.1.0 wrote them."""
    whole = pq.read_table(path)
    told = json.loads(whole.schema.metadata[KEY]) | changes
    told.pop(STATED, None)
    table = whole if table is None else table
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(told)}), path)

"""`to_pandas`: the rows of a store as a data frame, wide or long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from mmcl_fast.errors import BackendUnavailableError, ConfigError
from mmcl_fast.sweep.store.plan_file import read_outline
from mmcl_fast.sweep.store.reader import load
from mmcl_fast.sweep.store.schema import CURVES, part_schema

if TYPE_CHECKING:
    import pandas as pd

Form = Literal["wide", "long"]


def to_pandas(
    store: str | Path, form: Form = "wide", *, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Load every row computed so far as a data frame.

    Args:
        store: Directory of the store.
        form: "wide": one row a run, indexed by run_id, without the curves. "long": one row a run
            and epoch, with the curves' values; a failed run has none.
        columns: Columns of the settings and final values; default: wide, all of them; long, the
            swept settings, seed and status.

    Raises: ConfigError: another form, or an unknown column. BackendUnavailableError: pandas is not
        installed. Others as `load`.
    """
    if form not in ("wide", "long"):
        raise ConfigError(f"form: expected wide or long, got {form!r}")
    try:
        import pandas as pd
    except ImportError as error:
        raise BackendUnavailableError(
            "to_pandas: expected the package pandas (pip install 'mmcl-fast[pandas]'), got none"
        ) from error
    outline = read_outline(Path(store))
    curves = (*CURVES, *outline.metric_names)
    if form == "wide":
        known = part_schema(outline.dtype, outline.metric_names).names
        chosen = [n for n in known if n not in curves] if columns is None else columns
        wide = load(store, list(dict.fromkeys(["run_id", *chosen])))
        frame: pd.DataFrame = wide.to_pandas().set_index("run_id")
        return frame
    keys = list(dict.fromkeys([*outline.swept, "seed", "status"] if columns is None else columns))
    table = load(store, ["run_id", *keys, *(name for name in curves if name not in keys)])
    return pd.DataFrame(_long(table, ["run_id", *keys], curves))


def _long(table: pa.Table, keys: Sequence[str], curves: Sequence[str]) -> dict[str, Any]:
    """Columns with one entry a run and epoch."""
    first = table[curves[0]].combine_chunks()
    offsets = first.offsets.to_numpy()
    lengths = np.diff(offsets)  # 0 of a failed run, whose curves are null
    index = np.repeat(np.arange(len(table)), lengths)
    ends = np.cumsum(lengths)
    columns: dict[str, Any] = {
        name: table[name].take(pa.array(index)).to_pandas() for name in keys if name not in curves
    }
    columns["epoch"] = np.arange(len(index)) - np.repeat(ends - lengths, lengths)
    for name in curves:
        columns[name] = table[name].combine_chunks().drop_null().flatten().to_numpy()
    return columns


__all__ = ["to_pandas"]

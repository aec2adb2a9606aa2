"""The numbers of a sweep's picture as a table, and as a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from mmcl_fast.files import write_atomically
from mmcl_fast.plotting.sweep import Drawn
from mmcl_fast.sweep.store.seed_statistics import Cells


def figure_data(drawn: Drawn) -> pa.Table:
    """Every point of a picture, one row each.

    Returns: The settings that define a point, `value` (which quantity), `epoch` (of curves),
        `runs`, `left_out` (diverged or failed), `mean`, `sd` (sample standard deviation over the
        runs), and the drawn line with its band: `centre`, `low`, `high`. A curve has a row for each
        epoch at which it was evaluated.
    """
    return pa.concat_tables(
        [_points(name, cells) for name, cells in drawn.cells.items()], promote_options="permissive"
    )


def save_data(drawn: Drawn, path: Path) -> Path:
    """Write `figure_data` as CSV, whole or not at all."""
    table = figure_data(drawn)
    return write_atomically(path, lambda temporary: pa_csv.write_csv(table, temporary))


def _points(name: str, cells: Cells) -> pa.Table:
    statistics = ("mean", "sd", "centre", "low", "high")
    curves = cells.mean.ndim == 2
    if curves:
        cell, epoch = np.nonzero(np.isfinite(cells.mean))
        place: tuple[Any, ...] = (cell, epoch)
    else:
        cell = np.arange(len(cells))
        place = (cell,)
    columns: dict[str, Any] = {key: [values[k] for k in cell] for key, values in cells.keys.items()}
    columns["value"] = [name] * len(cell)
    if curves:
        columns["epoch"] = epoch
    columns |= {"runs": cells.count[cell], "left_out": cells.left_out[cell]}
    columns |= {key: getattr(cells, key)[place] for key in statistics}
    return pa.table(columns)


__all__ = ["figure_data", "save_data"]

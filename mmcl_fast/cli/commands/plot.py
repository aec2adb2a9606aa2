"""`mmcl plot`: curves, lines and heatmaps from the store of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmcl_fast.errors import ConfigError
from mmcl_fast.files import prepare_directory
from mmcl_fast.plotting import curves, sweep
from mmcl_fast.plotting.style import settings_caption
from mmcl_fast.sweep.store.conditions import KEYS, filtered
from mmcl_fast.sweep.store.reader import check_column, load
from mmcl_fast.sweep.store.schema import CURVES
from mmcl_fast.sweep.store.seed_statistics import Cells, over_seeds

PlotKind = Literal["curves", "lines", "heatmap"]
FINALS = tuple(f"final_{name}" for name in CURVES)
SUFFIXES = (".png", ".pdf")


def plot_command(  # noqa: PLR0913 - one argument per flag
    store: Path,
    kind: PlotKind,
    *,
    x: str | None,
    y: str | None,
    value: str | None,
    hue: str,
    where: Sequence[str],
    out: Path,
) -> int:
    """Plot the rows of a store.

    Args:
        store: Directory of the store.
        kind: curves over epochs, lines over a setting, or a heatmap of two.
        x: Setting of the horizontal axis (lines, heatmap).
        y: Setting of the vertical axis (heatmap).
        value: Plotted quantity; default: the four curves, or final_ood_accuracy.
        hue: Setting that distinguishes lines, or panels.
        where: Conditions NAME=VALUE on the rows.
        out: Output file, .png or .pdf.

    Returns: Exit status 0.
    """
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"out: expected a file ending in .png or .pdf, got {str(out)!r}")
    keys = _keys(kind, x, y, hue)
    values = _values(kind, value)
    table = filtered(load(store, [*KEYS, "status", *values]), where)
    for flag, name in zip(("x", "y"), keys[:-1], strict=False):
        _check_numbers(table, flag, name)
    cells_of = {name: over_seeds(table, keys, name) for name in values}
    for name, cells in cells_of.items():
        if not np.isfinite(cells.mean).any():
            raise ConfigError(f"{name}: expected a value somewhere, got none (never evaluated?)")
    prepare_directory(out.parent)
    one = next(iter(cells_of.values()))
    fixed = settings_caption(_fixed(table, keys))
    if kind == "curves":
        figure = sweep.sweep_curves(cells_of, hue, fixed)
    elif kind == "lines":
        figure = sweep.sweep_lines(one, keys[0], hue, values[0], fixed)
    else:
        figure = sweep.sweep_heat(one, (keys[0], keys[1]), hue, values[0], fixed)
    curves.save(figure, out)
    _report(one, out)
    return 0


def _fixed(table: pa.Table, keys: Sequence[str]) -> dict[str, Any]:
    """Settings that are the same in every row, and no axis or line of the picture."""
    found = {}
    for name in KEYS:
        values = pc.unique(table[name])
        if name not in keys and len(values) == 1 and values[0].is_valid:
            found[name] = values[0].as_py()
    return found


def _keys(kind: PlotKind, x: str | None, y: str | None, hue: str) -> list[str]:
    """Key columns in the order x, y, hue; raises if a kind lacks one, or does not take one."""
    axes = {"curves": 0, "lines": 1, "heatmap": 2}[kind]
    keys = []
    for k, (flag, name) in enumerate((("x", x), ("y", y))):
        if k < axes and name is None:
            raise ConfigError(f"{flag}: expected a setting with --kind {kind}, got none")
        if k >= axes and name is not None:
            raise ConfigError(f"{flag}: expected none with --kind {kind}, got {name}")
        if name is not None:
            check_column(name, KEYS)
            keys.append(name)
    check_column(hue, KEYS)
    if len({*keys, hue}) < len(keys) + 1:
        raise ConfigError(f"hue: expected another setting than --x and --y, got {hue}")
    return [*keys, hue]


def _values(kind: PlotKind, value: str | None) -> tuple[str, ...]:
    known = CURVES if kind == "curves" else FINALS
    if value is None:
        return CURVES if kind == "curves" else ("final_ood_accuracy",)
    check_column(value, known)
    return (value,)


def _check_numbers(table: pa.Table, flag: str, name: str) -> None:
    """Raise ConfigError for an axis that is not a number in every row."""
    if pa.types.is_string(table[name].type):
        raise ConfigError(f"{flag}: expected a setting with numbers, got {name}")
    if table[name].null_count:
        raise ConfigError(f"{flag}: expected {name} to be a number in every row, got none in some")


def _report(cells: Cells, out: Path) -> None:
    runs = int(cells.count.sum())
    sys.stdout.write(f"wrote {out}: {runs} runs in {len(cells)} points\n")
    if left := int(cells.left_out.sum()):
        sys.stderr.write(f"mmcl: {left} diverged or failed runs are left out\n")


__all__ = ["PlotKind", "plot_command"]

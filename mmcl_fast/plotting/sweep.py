"""Pictures of a sweep: curves over epochs, lines over a setting, heat maps, in rows and columns.

    figure = draw("store", Picture(kind="lines", x="m", col="snr", row="modality"))

Statistics over seeds are taken by `seed_statistics`, from every row; nothing is resampled. The
caption of each picture says what its band is and how many seeds it is of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcl_fast.errors import ConfigError
from mmcl_fast.plotting.legend import hue_label, label, left_out, order, seeds, told
from mmcl_fast.plotting.panels import Panel, curves_panel, heat_panels, lines_panel
from mmcl_fast.plotting.picture import Picture
from mmcl_fast.plotting.style import STYLE, caption, read_style, settings_caption
from mmcl_fast.sweep.store.conditions import KEYS, filtered
from mmcl_fast.sweep.store.plan_file import read_outline
from mmcl_fast.sweep.store.reader import load
from mmcl_fast.sweep.store.seed_statistics import Cells, over_seeds

MANY = 6  # lines; a legend of more would cover them
PANEL_SIZE = {"curves": (2.3, 2.5), "lines": (3.0, 2.7), "heatmap": (3.6, 3.0)}
ONE_LINES = (5.5, 3.6)
MARGINS = {"curves": (0.0, 0.4), "lines": (0.6, 0.9), "heatmap": (1.2, 0.5)}


@dataclass(frozen=True)
class Drawn:
    """A figure, and what is in it.

    Attributes:
        figure: The figure; write it by `plotting.save`.
        cells: Statistics of each drawn value.
    """

    figure: Figure
    cells: dict[str, Cells]

    @property
    def runs(self) -> int:
        """Finished runs in the picture."""
        return int(self._any.count.sum())

    @property
    def points(self) -> int:
        """Points: settings of which each mean is taken."""
        return len(self._any)

    @property
    def left_out(self) -> int:
        """Runs that diverged or failed."""
        return int(self._any.left_out.sum())

    @property
    def _any(self) -> Cells:
        return next(iter(self.cells.values()))


def draw(store: str | Path, picture: Picture) -> Drawn:
    """Draw the rows of a store.

    Args:
        store: Directory of the store.
        picture: What to show.

    Raises: ConfigError: a setting that varies and is no axis, line, row, column or condition (the
        message names the one that was swept); an axis without numbers; nothing evaluated.
        OutputError: the store cannot be read.
    """
    outline = read_outline(Path(store))
    picture.check_value(outline.metric_names)
    swept = [name for name in outline.swept if name in KEYS]
    table = filtered(load(store, [*KEYS, "status", *picture.values]), picture.where)
    for flag, name in (("x", picture.x), ("y", picture.y)):
        if name is not None:
            _check_numbers(table, flag, name)
    cells = {
        value: over_seeds(table, picture.keys, value, band=picture.band, swept=swept)
        for value in picture.values
    }
    for name, found in cells.items():
        if not np.isfinite(found.mean).any():
            raise ConfigError(f"{name}: expected a value somewhere, got none (never evaluated?)")
    style: dict[Any, Any] = STYLE if picture.style is None else STYLE | read_style(picture.style)
    with mpl.rc_context(style):
        figure = _figure(picture, cells, table)
    return Drawn(figure, cells)


def _figure(picture: Picture, cells: dict[str, Cells], table: pa.Table) -> Figure:
    one = next(iter(cells.values()))
    rows = _values(one, picture.row)
    columns = _values(one, picture.columns)
    side_by_side = list(cells) if len(cells) > 1 else columns
    figure = Figure(figsize=_size(picture, len(rows), len(side_by_side)), layout="constrained")
    axes = figure.subplots(
        len(rows),
        len(side_by_side),
        squeeze=False,
        sharex=True,
        sharey="col" if len(cells) > 1 else True,
    )
    panels = []
    for i, row in enumerate(rows):
        for j, column in enumerate(side_by_side):
            value = column if len(cells) > 1 else picture.values[0]
            given = [(picture.row, row), *([] if len(cells) > 1 else [(picture.columns, column)])]
            at = {name: v for name, v in given if name is not None}
            panels.append(Panel(axes[i, j], value, cells[value], at, table))
            axes[i, j].set_title(_title(picture, value, at, first_row=i == 0))
    chance = _draw_panels(figure, panels, picture)
    _label(axes, picture, panels)
    _legend(figure, axes, picture, one)
    if picture.title is not None:
        figure.suptitle(picture.title)
    fixed = settings_caption(_fixed(table, picture.keys))
    if picture.kind == "heatmap":
        hatched = not all(np.isfinite(p.numbers("mean")).all() for p in panels)
        note = "; hatched: no finished run" if hatched else ""
        caption(figure, f"mean over {seeds(one)}{left_out(one)}{note}", fixed)
    else:
        caption(figure, told(one, picture.band, chance=chance), fixed)
    return figure


def _draw_panels(figure: Figure, panels: Sequence[Panel], picture: Picture) -> bool:
    """Draw into every panel.

    Returns: Whether chance is marked.
    """
    if picture.kind == "heatmap":
        heat_panels(figure, panels, picture)
        return False
    one = curves_panel if picture.kind == "curves" else lines_panel
    marked = [one(panel, picture) for panel in panels]
    return any(marked)


def _values(cells: Cells, name: str | None) -> list[Any]:
    return [None] if name is None else sorted(set(cells.keys[name]), key=order)


def _size(picture: Picture, rows: int, columns: int) -> tuple[float, float]:
    if picture.size is not None:
        return picture.size
    if picture.kind == "lines" and rows == columns == 1:
        return ONE_LINES
    (width, height), (right, bottom) = PANEL_SIZE[picture.kind], MARGINS[picture.kind]
    return max(4.2, width * columns + right), height * rows + bottom


def _title(picture: Picture, value: str, at: dict[str, Any], *, first_row: bool) -> str:
    """The panel's own settings; a curve's name above the first row."""
    found = ", ".join(hue_label(name, v) for name, v in at.items())
    if picture.kind == "curves" and (picture.value is None or not found) and first_row:
        return f"{label(value)}\n{found}".strip()
    return found


def _label(axes: Any, picture: Picture, panels: Sequence[Panel]) -> None:
    """Labels of the outer axes."""
    across = "epoch" if picture.x is None else label(picture.x)
    upward = label(picture.y or panels[0].value)
    if picture.kind == "curves" and (picture.value is None or len(panels) == 1):
        upward = ""
    for axis in axes[-1]:
        axis.set_xlabel(across if picture.xlabel is None else picture.xlabel)
    for axis in axes[:, 0]:
        axis.set_ylabel(upward if picture.ylabel is None else picture.ylabel)


def _legend(figure: Figure, axes: Any, picture: Picture, cells: Cells) -> None:
    """One legend of all panels: in the first if it has room, else beside them."""
    if picture.lines is None or picture.kind == "heatmap":
        return
    first: Axes = axes[0, 0]
    handles, labels = first.get_legend_handles_labels()
    if not handles:
        return
    covered = axes.size > 1 and len(picture.values) == 1
    if covered or len(_values(cells, picture.lines)) > MANY:
        figure.legend(handles, labels, fontsize=7, loc="outside right center")
    else:
        first.legend(handles, labels, fontsize=7)


def _fixed(table: pa.Table, keys: Sequence[str]) -> dict[str, Any]:
    """Settings that are the same in every row, and no axis or line of the picture."""
    found = {}
    for name in KEYS:
        values = pc.unique(table[name])
        if name not in keys and len(values) == 1 and values[0].is_valid:
            found[name] = values[0].as_py()
    return found


def _check_numbers(table: pa.Table, flag: str, name: str) -> None:
    """Raise ConfigError for an axis that is not a number in every row."""
    if pa.types.is_string(table[name].type):
        raise ConfigError(f"{flag}: expected a setting with numbers, got {name}")
    if table[name].null_count:
        raise ConfigError(f"{flag}: expected {name} to be a number in every row, got none in some")


__all__ = ["Drawn", "draw"]

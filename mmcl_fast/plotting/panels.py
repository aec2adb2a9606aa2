"""One panel of a sweep's picture: curves, lines, or a heat map with the theory's borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.borders import TheoryPoint, log_t1_ratio, margin, theory_point
from mmcl_fast.plotting.heat import (
    LINES,
    Floats,
    border_handles,
    colour_limits,
    draw_border,
    heat_panel,
)
from mmcl_fast.plotting.legend import hue_label, hue_looks, label, order
from mmcl_fast.plotting.picture import Picture
from mmcl_fast.plotting.style import (
    CAPTION,
    PALETTE,
    draw_curve,
    look,
    mark_chance,
    scale_axis,
)
from mmcl_fast.sweep.store.seed_statistics import SETTINGS, Cells


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        axis: Where it is drawn.
        value: Column that is drawn.
        cells: Statistics of the whole picture.
        at: Values of its row and column.
        table: Rows of the whole picture.
    """

    axis: Axes
    value: str
    cells: Cells
    at: dict[str, Any]
    table: pa.Table

    def where(self, **more: Any) -> npt.NDArray[np.int64]:
        """Cells of the panel with these values."""
        return self.cells.where(**self.at | more)

    def numbers(self, name: str) -> Floats:
        """A statistic of the panel's cells."""
        found: Floats = getattr(self.cells, name)[self.where()]
        return found


def curves_panel(panel: Panel, picture: Picture) -> bool:
    """Curves over epochs, one line with its band a value of the hue.

    Returns: Whether chance is marked.
    """
    cells = panel.cells
    for found, style in _lines(panel, picture):
        (k,) = found
        seen = np.flatnonzero(np.isfinite(cells.mean[k]))
        draw_curve(panel.axis, seen, cells.centre[k][seen], style)
        _shade(panel.axis, seen, cells.low[k][seen], cells.high[k][seen], style["color"])
    if picture.log in ("x", "xy"):
        panel.axis.set_xscale("symlog", linthresh=1.0)  # there is an epoch 0
    return _finish(panel, picture)


def lines_panel(panel: Panel, picture: Picture) -> bool:
    """A final value over a setting, one line with its band a value of the hue.

    Returns: Whether chance is marked.
    """
    assert picture.x is not None
    cells = panel.cells
    for found, style in _lines(panel, picture):
        places = np.array([cells.keys[picture.x][k] for k in found], float)
        there = np.isfinite(cells.mean[found])
        x, mine = places[there], found[there]
        panel.axis.plot(x, cells.centre[mine], lw=1.4, **style)
        _shade(panel.axis, x, cells.low[mine], cells.high[mine], style["color"])
    _scale(panel.axis, "x", [float(v) for v in cells.keys[picture.x]], picture)
    return _finish(panel, picture)


def heat_panels(figure: Figure, panels: Sequence[Panel], picture: Picture) -> None:
    """Heat maps with one scale of colours, and the theory's borders if wanted."""
    assert picture.x is not None
    assert picture.y is not None
    cells = panels[0].cells
    xs, ys = (sorted({float(v) for v in cells.keys[name]}) for name in (picture.x, picture.y))
    table = panels[0].table
    below_half = any((k or 2) > 2 for k in pc.unique(table["classes"]).to_pylist()) or any(
        pc.any(pc.greater(table[name], 0)).as_py() for name in ("spurious_norm", "spurious_b_norm")
    )
    limits = colour_limits(panels[0].value, cells.mean, below_half=below_half)
    for panel in panels:
        found = panel.where()
        column = [xs.index(float(cells.keys[picture.x][k])) for k in found]
        row = [ys.index(float(cells.keys[picture.y][k])) for k in found]
        grid = np.full((len(ys), len(xs)), np.nan)
        grid[row, column] = cells.mean[found]
        mesh = heat_panel(panel.axis, xs, ys, grid, limits)
        for which, values in (("x", xs), ("y", ys)):
            _scale(panel.axis, which, values, picture, automatic=False)
    figure.colorbar(mesh, ax=[panel.axis for panel in panels], label=label(panels[0].value))
    if picture.theory:
        _borders(figure, panels, (picture.x, xs), (picture.y, ys))


def _borders(
    figure: Figure,
    panels: Sequence[Panel],
    x: tuple[str, list[float]],
    y: tuple[str, list[float]],
) -> None:
    """The theory's borders on heat maps, and a legend of those that lie on one."""
    known, drawn = False, [False, False]
    for panel in panels:
        keys = panel.cells.keys
        grids = np.full((2, len(y[1]), len(x[1])), np.nan)
        for k in panel.where():
            point, modality = _point(panel.table, int(panel.cells.first[k]))
            if point is not None:
                place = y[1].index(float(keys[y[0]][k])), x[1].index(float(keys[x[0]][k]))
                grids[(slice(None), *place)] = (
                    log_t1_ratio(point, modality),
                    margin(point, modality),
                )
        known |= bool(np.isfinite(grids).any())
        for j, style in enumerate(LINES):
            drawn[j] |= draw_border(panel.axis, (x[1], y[1]), grids[j], style)
    if not known:
        raise ConfigError(
            "theory: expected settings of which the theory speaks (q = 1, gradient descent, a "
            "signal, no model variant), got none"
        )
    handles = [handle for handle, there in zip(border_handles(), drawn, strict=True) if there]
    if not handles:
        handles = [Line2D([], [], ls="", label="no border of the theory on these maps")]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=CAPTION)


def _lines(panel: Panel, picture: Picture) -> list[tuple[npt.NDArray[np.int64], dict[str, Any]]]:
    """Cells and look of each line of a panel."""
    if picture.lines is None:
        modality = panel.at.get("modality")
        style = (
            look(modality) if modality else {"color": PALETTE[0], "ls": "-", "marker": "o", "ms": 4}
        )
        return [(panel.where(), style)]
    values = sorted(set(panel.cells.keys[picture.lines]), key=order)
    looks = hue_looks(picture.lines, values)
    found = []
    for value in values:
        mine = panel.where(**{picture.lines: value})
        if len(mine):
            style = looks[value] | {"label": hue_label(picture.lines, value)}
            found.append((mine, style))
    return found


def _finish(panel: Panel, picture: Picture) -> bool:
    """The vertical scale, and chance.

    Returns: Whether chance is marked.
    """
    if picture.log in ("y", "xy"):
        panel.axis.set_yscale("log")
    if not panel.value.endswith("ood_accuracy"):
        return False
    column = panel.table["classes"]
    classes = {column[int(row)].as_py() for row in panel.numbers("first")}
    if len({k or 2 for k in classes}) > 1:
        return False  # lines of different chance
    mark_chance(panel.axis, classes.pop())
    return True


def _scale(
    axis: Axes, which: Any, values: Sequence[float], picture: Picture, *, automatic: bool = True
) -> None:
    """Scale of an axis of settings: as asked, else by their values."""
    if picture.log == "auto":
        if automatic:
            scale_axis(axis, which, values)
    elif which in picture.log:
        if min(values) <= 0:
            raise ConfigError(f"log: expected values > 0 on the {which} axis, got {min(values):g}")
        getattr(axis, f"set_{which}scale")("log")
    else:
        getattr(axis, f"set_{which}scale")("linear")


def _shade(axis: Axes, x: Any, low: Floats, high: Floats, colour: Any) -> None:
    if (low < high).any():
        axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)


def _point(table: pa.Table, row: int) -> tuple[TheoryPoint | None, str]:
    cfg = TrainConfig(**{name: table[name][row].as_py() for name in SETTINGS})
    return theory_point(cfg), cfg.modality


__all__ = ["Panel", "curves_panel", "heat_panels", "lines_panel"]

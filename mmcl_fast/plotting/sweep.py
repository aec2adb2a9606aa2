"""Pictures of a sweep: curves over epochs, lines over a setting, heat maps of two settings.

Statistics over seeds are taken by `seed_statistics`, from every row; nothing is resampled. The
caption of each picture says what its band is and how many seeds it is of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from mmcl_fast.plotting.curves import PANELS
from mmcl_fast.plotting.style import (
    MAP,
    MODALITIES,
    MORE_DASHES,
    MORE_MARKERS,
    NAMES,
    PALETTE,
    STYLE,
    caption,
    draw_curve,
    is_logarithmic,
    look,
    mark_chance,
    scale_axis,
    symbol,
)
from mmcl_fast.sweep.store.seed_statistics import Cells

Floats = npt.NDArray[np.float64]
ACCURACY = (0.5, 1.0)
MANY = 6  # lines; a legend of more would cover them
LABELS = {f"final_{name}": f"{title}, last epoch" for name, (title, _) in PANELS.items()}


def sweep_curves(found: Mapping[str, Cells], hue: str, fixed: str = "") -> Figure:
    """Curves over epochs, one panel a curve and one line with its band a value of `hue`.

    Args:
        found: Cells of each curve's name, keyed by `hue` alone.
        hue: The key column.
        fixed: What was held fixed, for the caption.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(4.2, 2.3 * len(found)), 2.9), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(found)))
        for axis, (name, cells) in zip(axes, found.items(), strict=True):
            values = list(cells.keys[hue])
            looks = hue_looks(hue, values)
            for k in sorted(range(len(values)), key=lambda k: _order(values[k])):
                seen = np.flatnonzero(np.isfinite(cells.mean[k]))
                mean, sd = cells.mean[k][seen], cells.sd[k][seen]
                style = looks[values[k]] | {"label": hue_label(hue, values[k])}
                draw_curve(axis, seen, mean, style)
                _shade(axis, (seen, mean, sd), style["color"])
            axis.set(title=PANELS[name][0], xlabel="epoch")
            if name == "ood_accuracy":
                mark_chance(axis)
        axes[0].legend(fontsize=7)
        cells = next(iter(found.values()))
        caption(figure, told(cells, chance="ood_accuracy" in found), fixed)
    return figure


def sweep_lines(cells: Cells, x: str, hue: str, value: str, fixed: str = "") -> Figure:
    """A final value over a setting, one line with its band a value of `hue`.

    Args:
        cells: Keyed by `x` and `hue`.
        x: Key column of the horizontal axis, numbers.
        hue: Key column of the lines.
        value: Name of what the cells hold.
        fixed: What was held fixed, for the caption.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 3.6), layout="constrained")
        axis = figure.subplots()
        shown = sorted(set(cells.keys[hue]), key=_order)
        looks = hue_looks(hue, shown)
        for one in shown:
            mine = cells.where(**{hue: one})
            places = np.array([cells.keys[x][k] for k in mine], float)
            there = np.isfinite(cells.mean[mine])
            line = (places[there], cells.mean[mine][there], cells.sd[mine][there])
            axis.plot(*line[:2], lw=1.4, label=hue_label(hue, one), **looks[one])
            _shade(axis, line, looks[one]["color"])
        axis.set(xlabel=label(x), ylabel=label(value))
        scale_axis(axis, "x", [float(v) for v in cells.keys[x]])
        if value == "final_ood_accuracy":
            mark_chance(axis)
        if len(shown) > MANY:
            figure.legend(fontsize=7, loc="outside right center")
        else:
            axis.legend(fontsize=7)
        caption(figure, told(cells, chance=value == "final_ood_accuracy"), fixed)
    return figure


def sweep_heat(
    cells: Cells, axes: tuple[str, str], hue: str, value: str, fixed: str = ""
) -> Figure:
    """A final value over two settings, one panel a value of `hue`, one scale of colours.

    Args:
        cells: Keyed by both axes and `hue`.
        axes: Key columns of the horizontal and the vertical axis, numbers.
        hue: Key column of the panels.
        value: Name of what the cells hold.
        fixed: What was held fixed, for the caption.
    """
    x, y = axes
    xs, ys = (sorted({float(v) for v in cells.keys[name]}) for name in axes)
    panels = sorted(set(cells.keys[hue]), key=_order)
    limits = colour_limits(value, cells.mean)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(panels) + 1.2, 3.5), layout="constrained")
        drawn = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for axis, one in zip(drawn, panels, strict=True):
            grid = np.full((len(ys), len(xs)), np.nan)
            for k in cells.where(**{hue: one}):
                place = ys.index(float(cells.keys[y][k])), xs.index(float(cells.keys[x][k]))
                grid[place] = cells.mean[k]
            mesh = heat_panel(axis, xs, ys, grid, limits)
            axis.set(title=hue_label(hue, one), xlabel=label(x))
        drawn[0].set_ylabel(label(y))
        figure.colorbar(mesh, ax=list(drawn), label=label(value))
        count = _seeds(cells)
        note = "; hatched: no finished run" if not np.isfinite(cells.mean).all() else ""
        caption(figure, f"mean over {count}{_left_out(cells)}{note}", fixed)
    return figure


def heat_panel(
    axis: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    grid: Floats,
    limits: tuple[float, float],
) -> QuadMesh:
    """Draw one map, `grid` [ys, xs]; cells without a value stay hatched."""
    scale_axis(axis, "x", xs)
    scale_axis(axis, "y", ys)
    axis.set_facecolor("0.9")
    axis.patch.set_hatch("////")
    axis.patch.set_edgecolor("0.7")
    axis.grid(visible=False)
    return axis.pcolormesh(
        edges(xs),
        edges(ys),
        np.ma.masked_invalid(grid),
        cmap=MAP,
        vmin=limits[0],
        vmax=limits[1],
        rasterized=True,
    )


def edges(centres: Sequence[float]) -> Floats:
    """Borders of the cells around sorted centres, half-way between them, [centres + 1].

    Half-way is taken in logarithms where the axis is logarithmic.
    """
    logarithmic = is_logarithmic(centres)
    middle = np.log(centres) if logarithmic else np.array(centres, float)
    if len(middle) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    inner = (middle[1:] + middle[:-1]) / 2
    outer = [2 * middle[0] - inner[0], 2 * middle[-1] - inner[-1]]
    found = np.concatenate([outer[:1], inner, outer[1:]])
    return np.exp(found) if logarithmic else found


def colour_limits(value: str, means: Floats) -> tuple[float, float]:
    """Ends of the colour scale: chance to 1 for accuracy, else those of the values."""
    if "accuracy" in value:
        return ACCURACY
    finite = means[np.isfinite(means)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def hue_looks(hue: str, values: Sequence[Any]) -> dict[Any, dict[str, Any]]:
    """Colour, dash and marker of each value; modalities have their own."""
    if hue == "modality":
        return {modality: look(modality) for modality in MODALITIES}
    colours: Sequence[Any] = [PALETTE[k % len(PALETTE)] for k in range(len(values))]
    if all(isinstance(v, int | float) for v in values) and len(values) > 2:
        colours = [tuple(c) for c in mpl.colormaps[MAP](np.linspace(0.0, 0.9, len(values)))]
    return {
        v: {
            "color": colours[k],
            "ls": MORE_DASHES[k % len(MORE_DASHES)],
            "marker": MORE_MARKERS[k % len(MORE_MARKERS)],
            "ms": 4,
        }
        for k, v in enumerate(values)
    }


def hue_label(hue: str, value: Any) -> str:
    """A value's name in a legend."""
    if hue == "modality":
        return NAMES[value]
    return f"{label(hue)} = {value:.4g}" if isinstance(value, float) else f"{label(hue)} = {value}"


def label(name: str) -> str:
    """A column's name on an axis."""
    return LABELS.get(name, symbol(name))


def told(cells: Cells, *, chance: bool) -> str:
    """What a band is, of how many seeds, and what the dotted line is."""
    dotted = "; dotted: chance" if chance else ""
    return f"mean ± 1 s.d. over {_seeds(cells)}{_left_out(cells)}{dotted}"


def _seeds(cells: Cells) -> str:
    low, high = int(cells.count.min()), int(cells.count.max())
    return f"{low} to {high} seeds" if low < high else f"{high} seed{'s' * (high != 1)}"


def _left_out(cells: Cells) -> str:
    total = int(cells.left_out.sum())
    return f"; {total} diverged or failed run{'s' * (total != 1)} left out" if total else ""


def _order(value: Any) -> tuple[int, Any]:
    """Single before multi; what is not set before numbers and words."""
    names = list(NAMES)
    if value is None or value in names:
        return (0, -1 if value is None else names.index(value))
    return (1, value)


def _shade(axis: Axes, line: tuple[npt.NDArray[Any], Floats, Floats], colour: Any) -> None:
    x, mean, sd = line
    axis.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.2, lw=0)


__all__ = [
    "colour_limits",
    "edges",
    "heat_panel",
    "hue_label",
    "hue_looks",
    "label",
    "sweep_curves",
    "sweep_heat",
    "sweep_lines",
    "told",
]

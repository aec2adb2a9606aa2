"""Pictures of a sweep: curves over epochs, lines over a setting, heat maps of two settings.

Statistics over seeds are taken by `seed_statistics`, from every row; nothing is resampled. The
caption of each picture says what its band is and how many seeds it is of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mmcl_fast.plotting.curves import COLOURS, NAMES, PANELS, STYLE
from mmcl_fast.sweep.store.seed_statistics import Cells

Floats = npt.NDArray[np.float64]
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MAP = "cividis"  # even in lightness, and the same to colour-blind eyes
ACCURACY = (0.5, 1.0)
LOG_RANGE = 20.0  # a positive axis wider than this is logarithmic
MANY = 6  # lines; a legend of more would cover them
FEW_DECADES = 2e3
LABELS = {
    "n_snr2": "n SNR²",
    "snr": "SNR",
    "c_mu": "$C_\\mu$",
    "noise_rate": "growth rate of noise",
    "noise_start": "initial noise activation",
} | {f"final_{name}": f"{title}, last epoch" for name, (title, _) in PANELS.items()}


def sweep_curves(found: Mapping[str, Cells], hue: str) -> Figure:
    """Curves over epochs, one panel a curve and one line with its band a value of `hue`.

    Args:
        found: Cells of each curve's name, keyed by `hue` alone.
        hue: The key column.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(4.2, 2.75 * len(found)), 2.9), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(found)))
        for axis, (name, cells) in zip(axes, found.items(), strict=True):
            colours = hue_colours(hue, cells.keys[hue])
            for k, value in enumerate(cells.keys[hue]):
                seen = np.flatnonzero(np.isfinite(cells.mean[k]))
                _band(
                    axis,
                    (seen, cells.mean[k][seen], cells.sd[k][seen]),
                    colours[value],
                    hue_label(hue, value),
                )
            axis.set(title=PANELS[name][0], xlabel="epoch")
            if name == "ood_accuracy":
                axis.axhline(0.5, color="black", lw=0.6, ls=":")
        axes[0].legend(fontsize=7)
        cells = next(iter(found.values()))
        figure.supxlabel(caption(cells), fontsize=7)
    return figure


def sweep_lines(cells: Cells, x: str, hue: str, value: str) -> Figure:
    """A final value over a setting, one line with its band a value of `hue`.

    Args:
        cells: Keyed by `x` and `hue`.
        x: Key column of the horizontal axis, numbers.
        hue: Key column of the lines.
        value: Name of what the cells hold.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 3.6), layout="constrained")
        axis = figure.subplots()
        shown = sorted(set(cells.keys[hue]), key=_order)
        colours = hue_colours(hue, shown)
        for one in shown:
            mine = cells.where(**{hue: one})
            places = np.array([cells.keys[x][k] for k in mine], float)
            there = np.isfinite(cells.mean[mine])
            _band(
                axis,
                (places[there], cells.mean[mine][there], cells.sd[mine][there]),
                colours[one],
                hue_label(hue, one),
                marker="o",
            )
        axis.set(xlabel=label(x), ylabel=label(value))
        scale_axis(axis, "x", [float(v) for v in cells.keys[x]])
        if value == "final_ood_accuracy":
            axis.axhline(0.5, color="black", lw=0.6, ls=":")
        if len(shown) > MANY:
            figure.legend(fontsize=7, loc="outside right center")
        else:
            axis.legend(fontsize=7)
        figure.supxlabel(caption(cells), fontsize=7)
    return figure


def sweep_heat(cells: Cells, axes: tuple[str, str], hue: str, value: str) -> Figure:
    """A final value over two settings, one panel a value of `hue`, one scale of colours.

    Args:
        cells: Keyed by both axes and `hue`.
        axes: Key columns of the horizontal and the vertical axis, numbers.
        hue: Key column of the panels.
        value: Name of what the cells hold.
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
        figure.supxlabel(f"mean over {count}{_left_out(cells)}{note}", fontsize=7)
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


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether an axis of these values is drawn logarithmically."""
    return len(set(values)) > 2 and min(values) > 0 and max(values) >= LOG_RANGE * min(values)


def scale_axis(axis: Axes, which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Linear or logarithmic; over few decades with ticks at 1, 2 and 5 in plain numbers."""
    if not is_logarithmic(values):
        return
    getattr(axis, f"set_{which}scale")("log")
    ticks = getattr(axis, f"{which}axis")
    ticks.set_minor_formatter(NullFormatter())
    if max(values) < FEW_DECADES * min(values):
        ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ticks.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def colour_limits(value: str, means: Floats) -> tuple[float, float]:
    """Ends of the colour scale: chance to 1 for accuracy, else those of the values."""
    if "accuracy" in value:
        return ACCURACY
    finite = means[np.isfinite(means)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def hue_colours(hue: str, values: Sequence[Any]) -> dict[Any, Any]:
    """A colour for each value: modalities have theirs, numbers a sequence, words the palette."""
    if hue == "modality":
        return dict(COLOURS)
    if all(isinstance(v, int | float) for v in values) and len(values) > 2:
        shades = mpl.colormaps[MAP](np.linspace(0.0, 0.9, len(values)))
        return dict(zip(values, shades, strict=True))
    return {v: OKABE_ITO[k % len(OKABE_ITO)] for k, v in enumerate(values)}


def hue_label(hue: str, value: Any) -> str:
    """A value's name in a legend."""
    if hue == "modality":
        return NAMES[value]
    return f"{label(hue)} = {value:.4g}" if isinstance(value, float) else f"{label(hue)} = {value}"


def label(name: str) -> str:
    """A column's name on an axis."""
    return LABELS.get(name, name)


def caption(cells: Cells) -> str:
    """What a band is, and of how many seeds."""
    return f"mean ± 1 s.d. over {_seeds(cells)}{_left_out(cells)}"


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


def _band(
    axis: Axes,
    line: tuple[npt.NDArray[Any], Floats, Floats],
    colour: Any,
    name: str,
    marker: str | None = None,
) -> None:
    x, mean, sd = line
    axis.plot(x, mean, color=colour, lw=1.4, marker=marker, ms=3, label=name)
    axis.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.2, lw=0)


__all__ = [
    "caption",
    "colour_limits",
    "edges",
    "heat_panel",
    "hue_colours",
    "hue_label",
    "is_logarithmic",
    "label",
    "scale_axis",
    "sweep_curves",
    "sweep_heat",
    "sweep_lines",
]

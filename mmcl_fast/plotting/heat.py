"""A heat map of numbers over two axes, and the theory's borders on it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator

from mmcl_fast.plotting.style import (
    MANY_TICKS,
    MAP,
    accuracy_limits,
    is_logarithmic,
    scale_axis,
)

Floats = npt.NDArray[np.float64]
BETWEEN = 8  # steps between cells: contours are straight in the axis, not in its logarithm
LINES = (
    SimpleNamespace(colour="black", halo="white", width=1.8, dashes="-"),
    SimpleNamespace(colour="white", halo="black", width=1.2, dashes="--"),
)
"""Looks of the border of T1, and of that of Assumption 4.1."""


def heat_panel(
    axis: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    grid: Floats,
    limits: tuple[float, float],
    linear: tuple[bool, bool] = (False, False),
) -> QuadMesh:
    """Draw one map, `grid` [ys, xs]; cells without a value stay hatched.

    An axis is logarithmic where its values ask for it, unless it is said to be linear. A linear
    axis of few values has its ticks there: others would be at places without a run.
    """
    if not linear[0]:
        scale_axis(axis, "x", xs)
    if not linear[1]:
        scale_axis(axis, "y", ys)
    for ticks, values in ((axis.xaxis, xs), (axis.yaxis, ys)):
        if ticks.get_scale() == "linear" and len(values) <= MANY_TICKS:
            ticks.set_major_locator(FixedLocator([float(v) for v in values]))
    axis.set_facecolor("0.9")
    axis.patch.set_hatch("////")
    axis.patch.set_edgecolor("0.7")
    axis.grid(visible=False)
    return axis.pcolormesh(
        edges(xs, linear=linear[0]),
        edges(ys, linear=linear[1]),
        np.ma.masked_invalid(grid),
        cmap=MAP,
        vmin=limits[0],
        vmax=limits[1],
        rasterized=True,
    )


def edges(centres: Sequence[float], *, linear: bool = False) -> Floats:
    """Borders of the cells around sorted centres, half-way between them, [centres + 1].

    Half-way is taken in logarithms where the axis is logarithmic.
    """
    logarithmic = not linear and is_logarithmic(centres)
    middle = np.log(centres) if logarithmic else np.array(centres, float)
    if len(middle) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    inner = (middle[1:] + middle[:-1]) / 2
    outer = [2 * middle[0] - inner[0], 2 * middle[-1] - inner[-1]]
    found = np.concatenate([outer[:1], inner, outer[1:]])
    return np.exp(found) if logarithmic else found


def colour_limits(value: str, means: Floats, *, below_half: bool) -> tuple[float, float]:
    """Ends of the colour scale: those of `accuracy_limits` for accuracy, else of the values."""
    if "accuracy" in value:
        return accuracy_limits(below_half=below_half)
    finite = means[np.isfinite(means)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def draw_border(
    axis: Axes,
    place: tuple[Sequence[float], Sequence[float]],
    numbers: Floats,
    look: SimpleNamespace,
) -> bool:
    """Draw where numbers over two axes, [ys, xs], change sign.

    Returns: Whether they do; where one is NaN, no line is drawn.
    """
    finite = numbers[np.isfinite(numbers)]
    if min(numbers.shape) < 2 or not len(finite) or not finite.min() < 0 < finite.max():
        return False
    xs, numbers = _finer(place[0], numbers)
    ys, columns = _finer(place[1], numbers.T)
    line = axis.contour(
        xs,
        ys,
        np.ma.masked_invalid(columns.T),
        levels=[0.0],
        colors=look.colour,
        linewidths=look.width,
        linestyles=look.dashes,
    )
    line.set_path_effects([withStroke(linewidth=look.width + 1.4, foreground=look.halo)])
    return True


def _finer(places: Sequence[float], rows: Floats) -> tuple[Floats, Floats]:
    """Rows of numbers at places in between, in logarithms where the axis is logarithmic."""
    logarithmic = is_logarithmic(places)
    at = np.linspace(0, len(places) - 1, (len(places) - 1) * BETWEEN + 1)
    index = np.arange(len(places))
    between = np.interp(at, index, np.log(places) if logarithmic else places)
    finer = np.array([np.interp(at, index, row) for row in rows])
    return np.exp(between) if logarithmic else between, finer


def border_handles() -> list[Line2D]:
    """Entries of a legend for the border of T1, and for that of Assumption 4.1."""
    labels = ("$T_1$ of signal = $T_1$ of noise (Lemmas 5.2, 5.4)", "border of Assumption 4.1")
    return [
        Line2D(
            [],
            [],
            color=look.colour,
            lw=look.width,
            ls=look.dashes,
            path_effects=[withStroke(linewidth=look.width + 1.4, foreground=look.halo)],
            label=text,
        )
        for look, text in zip(LINES, labels, strict=True)
    ]


__all__ = [
    "LINES",
    "Floats",
    "border_handles",
    "colour_limits",
    "draw_border",
    "edges",
    "heat_panel",
]

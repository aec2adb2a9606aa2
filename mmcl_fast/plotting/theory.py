"""The picture of the theory checks: one panel a check, the theory's own lines in black."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mmcl_fast.experiments.theory_checks.check import Finding, Panel, Series
from mmcl_fast.plotting.curves import COLOURS, STYLE

COLUMNS = 3
PANEL_SIZE = (3.9, 3.1)
THEORY_STYLES = ("--", ":", "-.")
FAINT_STYLES = (":", "-.")
NARROW = 100.0  # a logarithmic axis below this range labels too much or too little


def theory(findings: Sequence[Finding], seeds: int) -> Figure:
    """Every check's panel: means with one standard deviation over seeds, predictions in black.

    Args:
        findings: The checks, at least one.
        seeds: Number of seeds, for the caption.
    """
    columns = min(COLUMNS, len(findings))
    rows = math.ceil(len(findings) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(PANEL_SIZE[0] * columns, PANEL_SIZE[1] * rows), layout="constrained"
        )
        axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axis, finding in zip(axes, findings, strict=False):
            _draw(axis, finding.panel)
        for axis in axes[len(findings) :]:
            axis.remove()
        figure.supxlabel(
            f"mean ± 1 s.d. over {seeds} seed{'s' * (seeds > 1)}; black: the paper", fontsize=8
        )
    return figure


def _draw(axis: Axes, panel: Panel) -> None:
    axis.set(title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel)
    axis.set_xscale("log" if panel.log_x else "linear")
    axis.set_yscale("log" if panel.log_y else "linear")
    places = sorted({x for series in panel.series for x in series.x})
    if panel.log_x and places[-1] < NARROW * places[0]:
        axis.set_xticks(places, [f"{x:g}" for x in places])
        axis.xaxis.set_minor_locator(NullLocator())
    # Lines of one modality share its colour, so their styles tell them apart.
    styles = {modality: itertools.cycle(FAINT_STYLES) for modality in COLOURS}
    black = itertools.cycle(THEORY_STYLES)
    for series in panel.series:
        if series.modality is None:
            axis.plot(
                series.x, series.mean, color="black", lw=1, ls=next(black), label=series.label
            )
        else:
            faint = next(styles[series.modality]) if series.faint else "-"
            _measured(axis, series, COLOURS[series.modality], faint)
    axis.legend(fontsize=6.5, loc=panel.legend)


def _measured(axis: Axes, series: Series, colour: str, style: str) -> None:
    axis.errorbar(
        series.x,
        series.mean,
        yerr=series.sd,
        color=colour,
        ls=style,
        lw=1.3,
        marker="o" if not series.faint else "s",
        ms=3.5,
        mfc=colour if not series.faint else "white",
        capsize=2,
        label=series.label,
    )


__all__ = ["theory"]

"""The picture of the theory checks: one panel a check, the theory's own lines in black."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcl_fast.experiments.theory_checks.check import Finding, Panel, Series
from mmcl_fast.plotting.style import (
    CAPTION,
    MORE_MARKERS,
    STYLE,
    caption,
    log_ticks,
    look,
    seeds_text,
)

COLUMNS = 3
PANEL_SIZE = (3.7, 3.2)
THEORY_STYLES = ("--", ":", "-.")


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
        caption(
            figure,
            f"{seeds_text(seeds)}; black: the paper; blue circles, solid: single-modal; "
            "orange, dashed: multi-modal",
            r"grey dotted: chance; $m$ = 50, $\tau = 1/m$; unless said otherwise $C_\mu$ = 3, "
            r"$n\,\mathrm{SNR}^2$ = 1.25",
        )
    return figure


def _draw(axis: Axes, panel: Panel) -> None:
    axis.set_title(panel.title, pad=18 if panel.fixed else 6)
    axis.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    if panel.fixed:
        place: dict[str, Any] = {"ha": "center", "va": "bottom", "transform": axis.transAxes}
        axis.text(0.5, 1.02, panel.fixed, fontsize=CAPTION, color="0.25", **place)
    axis.set_xscale("log" if panel.log_x else "linear")
    axis.set_yscale("log" if panel.log_y else "linear")
    places = sorted({x for series in panel.series for x in series.x})
    if panel.log_x and len(places) > 1:
        log_ticks(axis, "x", places)
    if panel.chance is not None:
        axis.axhline(panel.chance, color="0.4", lw=0.9, ls=":", zorder=1)
    black = itertools.cycle(THEORY_STYLES)
    more = {modality: itertools.count() for modality in ("single", "multi")}
    alike = {m: sum(s.modality == m for s in panel.series) for m in more}
    for series in panel.series:
        if series.modality is None:
            axis.plot(
                series.x, series.mean, color="black", lw=1, ls=next(black), label=series.label
            )
            continue
        chosen = look(series.modality, second=series.faint)
        # Several lines of one modality and quantity keep its colour and dash: markers and shades.
        if alike[series.modality] > 2:
            chosen |= _shade(chosen["color"], next(more[series.modality]))
        _measured(axis, series, chosen, shares=panel.shares)
    axis.legend(fontsize=7, loc=panel.legend)


def _shade(colour: str, index: int) -> dict[str, Any]:
    """The same colour, darker by the place among its likes, and another marker."""
    factor = (1.0, 0.7, 0.4, 0.2)[index % 4]
    dark = tuple(factor * part for part in mpl.colors.to_rgb(colour))
    marker = MORE_MARKERS[(index + 1) % len(MORE_MARKERS)]
    return {"color": dark, "mec": dark, "mfc": dark, "marker": marker}


def _measured(axis: Axes, series: Series, chosen: dict[str, Any], *, shares: bool) -> None:
    mean, sd = np.array(series.mean), np.array(series.sd)
    bars = np.stack([sd, sd])
    if shares:  # no share is below 0 or above 1
        bars = np.stack([np.minimum(sd, mean), np.minimum(sd, 1 - mean)])
    if not series.joined:
        chosen = chosen | {"ls": ""}
    axis.errorbar(
        series.x, mean, yerr=bars, lw=1.3, elinewidth=1, capsize=2, label=series.label, **chosen
    )


__all__ = ["theory"]

"""The picture of an example: its panels side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.examples.names import SOURCES
from mmcl_fast.experiments.examples.result import ExampleResult, HeatPanel, LinePanel, Panel
from mmcl_fast.plotting.heat import heat_panel
from mmcl_fast.plotting.style import (
    CAPTION,
    MORE_DASHES,
    MORE_MARKERS,
    PALETTE,
    STYLE,
    accuracy_limits,
    caption,
    number,
    seeds_text,
    symbol,
)

MARKED = 30  # a line of more values is drawn without markers


def example(result: ExampleResult) -> Figure:
    """The panels of an example; below them what was varied, the seeds, and the settings."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.0 * len(result.panels) + 0.6, 3.6), layout="constrained")
        axes = figure.subplots(1, len(result.panels), squeeze=False)[0]
        for axis, panel in zip(axes, result.panels, strict=True):
            _draw(figure, axis, panel)
        _legends(axes, result.panels)
        varied = ", ".join(symbol(name) for name in result.varied)
        about = f"{seeds_text(len(result.seeds))}; varied: {varied}; after the question of "
        left_out = f"; {result.diverged} runs diverged" if result.diverged else ""
        caption(figure, about + SOURCES[result.name] + left_out, _settings(result))
    return figure


def _draw(figure: Figure, axis: Axes, panel: Panel) -> None:
    axis.set(title=panel.title, xlabel=panel.xlabel)
    if isinstance(panel, HeatPanel):
        limits = accuracy_limits(below_half=False)
        mesh = heat_panel(axis, panel.x, panel.y, panel.mean, limits)
        axis.set_ylabel(panel.ylabel)
        figure.colorbar(mesh, ax=axis, label="test accuracy")
    else:
        _lines(axis, panel)


def _lines(axis: Axes, panel: LinePanel) -> None:
    for k, line in enumerate(panel.lines):
        colour = PALETTE[k % len(PALETTE)]
        look: dict[str, Any] = {"color": colour, "ls": MORE_DASHES[k % len(MORE_DASHES)], "lw": 1.4}
        marker = MORE_MARKERS[k % len(MORE_MARKERS)] if len(panel.x) <= MARKED else None
        axis.plot(panel.x, line.mean, marker=marker, ms=3.5, label=line.label, **look)
        low, high = line.mean - line.sd, line.mean + line.sd
        axis.fill_between(panel.x, low, high, color=colour, alpha=0.2, lw=0)
    if panel.chance is not None:
        axis.axhline(panel.chance, color="0.4", lw=0.9, ls=":", zorder=1)
        axis.set_ylim(-0.03, 1.03)
    axis.set(xscale=panel.scales[0], yscale=panel.scales[1])


def _legends(axes: Sequence[Axes], panels: Sequence[Panel]) -> None:
    """A legend for each panel of several lines, but one alone where all have the same."""
    lines = [tuple(x.label for x in p.lines) if isinstance(p, LinePanel) else () for p in panels]
    for axis, names in list(zip(axes, lines, strict=True))[: 1 if len(set(lines)) == 1 else None]:
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
        if len(names) > 1:
            axis.legend(fontsize=CAPTION, **(below if len(names) > 2 else {}))


def _settings(result: ExampleResult) -> str:
    """Every setting that is no default and is not varied."""
    default, own = TrainConfig().to_dict(), result.config.to_dict()
    names = ("n", "d", "m", *(name for name in own if name not in ("n", "d", "m")))
    hidden = {"data", "evaluate_every", "n_test", *result.varied}
    always = {"n", "d", "m", "eta", "epochs"}
    shown = [k for k in names if k not in hidden and (own[k] != default[k] or k in always)]
    return ", ".join(f"{symbol(k)} = {number(own[k])}" for k in shown)


__all__ = ["example"]

"""The picture of `mmcl bench`: time and memory against N, D, n, d and m."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from mmcl_fast.plotting.curves import save
from mmcl_fast.plotting.style import MORE_DASHES, MORE_MARKERS, PALETTE, STYLE, caption

from ..operations import median_ms
from ..peers.registry import peer_of

AXES = {
    "N": "N, pairs of a loss",
    "D": "D, features of a loss",
    "n": "n, samples of a run",
    "d": "d, dimensions of a run",
    "m": "m, neurons of a run",
}
LEAST_TICKS = 3
LEAST_MIB = 0.5  # a page is 4 KiB, but an allocator's own noise is about this


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Draw the rows of `bench.cpu.scaling`; None, and no file, if there are none."""
    points = [row for row in rows if row["op"] == "sizes"]
    if not points:
        return None
    looks = _looks(points)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 5.2), layout="constrained")
        panels = figure.subplots(2, len(AXES))
        for k, (axis, label) in enumerate(AXES.items()):
            of_axis = [row for row in points if row["settings"]["axis"] == axis]
            for name in dict.fromkeys(row["variant"] for row in of_axis):
                line = [row for row in of_axis if row["variant"] == name]
                x = [row["settings"]["value"] for row in line]
                style = looks[name] | {"ms": 4, "label": name}
                panels[0, k].loglog(x, [median_ms(row) for row in line], **style)
                memory = [max(row["peak_mib"], LEAST_MIB) for row in line]
                panels[1, k].loglog(x, memory, **style)
            panels[0, k].set(title=label)
            panels[1, k].set(xlabel=axis)
            sizes = sorted({row["settings"]["value"] for row in of_axis})
            for panel in panels[:, k]:
                panel.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
                panel.minorticks_off()
                _label_heights(panel)
            if of_axis:
                panels[0, k].legend(fontsize=7)
        panels[0, 0].set(ylabel="ms, one thread")
        panels[1, 0].set(ylabel="peak MiB, inputs counted")
        cpu = points[0].get("cpu", "")
        caption(figure, f"{cpu}; float32; loss: forward and backward; run: 200 epochs")
    return save(figure, path)


def _looks(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker of each variant: ours first and solid, each peer its own."""
    names = list(dict.fromkeys(row["variant"] for row in points))
    ours = [name for name in names if peer_of(name) is None]
    looks = {name: {"color": PALETTE[0], "ls": "-", "marker": "o"} for name in ours}
    for k, name in enumerate((n for n in names if n not in ours), start=1):
        looks[name] = {
            "color": PALETTE[1 + (k - 1) % (len(PALETTE) - 1)],
            "ls": MORE_DASHES[k % len(MORE_DASHES)],
            "marker": MORE_MARKERS[k % len(MORE_MARKERS)],
        }
    return looks


def _label_heights(panel: Axes) -> None:
    """At least three labelled ticks on a logarithmic axis, however short it is."""
    low, high = panel.get_ylim()
    if low <= 0:  # nothing was drawn
        return
    for subs in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        locator = LogLocator(subs=subs, numticks=12)
        inside = [v for v in locator.tick_values(low, high) if low <= v <= high]
        if len(inside) >= LEAST_TICKS:
            break
    panel.set_yticks(inside, [f"{v:,.4g}" for v in inside], fontsize=7)


__all__ = ["draw"]

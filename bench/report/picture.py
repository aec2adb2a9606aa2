"""The picture of `mmcl bench`: time and memory against N, D, n, d and m."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from mmcl_fast.plotting.curves import STYLE, save

from ..operations import median_ms
from ..peers.registry import peer_of

AXES = {
    "N": "N, pairs of a loss",
    "D": "D, features of a loss",
    "n": "n, samples of a run",
    "d": "d, dimensions of a run",
    "m": "m, neurons of a run",
}
OURS, THEIRS = "#0072B2", "#D55E00"  # Okabe and Ito (2008)
LEAST_MIB = 0.5  # a page is 4 KiB, but an allocator's own noise is about this


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Draw the rows of `bench.cpu.scaling`; None, and no file, if there are none."""
    points = [row for row in rows if row["op"] == "sizes"]
    if not points:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(15, 5), layout="constrained")
        panels = figure.subplots(2, len(AXES))
        for k, (axis, label) in enumerate(AXES.items()):
            of_axis = [row for row in points if row["settings"]["axis"] == axis]
            for name in dict.fromkeys(row["variant"] for row in of_axis):
                line = [row for row in of_axis if row["variant"] == name]
                x = [row["settings"]["value"] for row in line]
                colour = OURS if peer_of(name) is None else THEIRS
                style = {"color": colour, "marker": "o", "ms": 3, "label": name}
                panels[0, k].loglog(x, [median_ms(row) for row in line], **style)
                memory = [max(row["peak_mib"], LEAST_MIB) for row in line]
                panels[1, k].loglog(x, memory, **style)
            panels[0, k].set(title=label)
            panels[1, k].set(xlabel=axis)
            sizes = sorted({row["settings"]["value"] for row in of_axis})
            for panel in panels[:, k]:
                panel.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
                panel.minorticks_off()
            if of_axis:
                panels[0, k].legend(fontsize=7)
        panels[0, 0].set(ylabel="ms, one thread")
        panels[1, 0].set(ylabel="peak MiB, inputs counted")
        cpu = points[0].get("cpu", "")
        figure.supxlabel(f"{cpu}; loss: forward and backward; run: 200 epochs", fontsize=7)
    return save(figure, path)


__all__ = ["draw"]

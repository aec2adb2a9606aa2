"""The whole specification."""

from __future__ import annotations

from mmcl_fast.report.spec.content import Content
from mmcl_fast.report.spec.curves import curves
from mmcl_fast.report.spec.cut import cut
from mmcl_fast.report.spec.data import data, runs_source
from mmcl_fast.report.spec.heat_map import heat_map
from mmcl_fast.report.spec.marks import scales
from mmcl_fast.report.spec.signals import Json, signals
from mmcl_fast.report.spec.table import table

SCHEMA = "https://vega.github.io/schema/vega/v6.json"
FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"


def specification(content: Content) -> Json:
    """The Vega specification of a report."""
    return {
        "$schema": SCHEMA,
        "description": "A sweep: a map over two settings, lines, curves and a table.",
        "autosize": "none",
        "padding": 0,
        "background": "white",
        "config": {key: {"font": FONT} for key in ("text", "title")}
        | {kind: {"labelFont": FONT, "titleFont": FONT} for kind in ("axis", "legend")},
        "signals": [*signals(content), *_chosen(content)],
        "data": [runs_source(content), *data(content)],
        "scales": scales(list(content.modalities)),
        "marks": [heat_map(content), cut(content), *curves(), table(content)],
    }


def _chosen(content: Content) -> list[Json]:
    """The chosen setting: its index on the map's axes, its name, its number."""
    axes = range(len(content.axes))
    fixed = "[" + ", ".join(f"fix_{k}" for k in axes) + "]"
    names = " + ', ' + ".join(
        f"axes[{k}].title + ' = ' + axes[{k}].labels[fix_{k}]"
        for k, name in content.named
        if name != "modality"
    )
    return [
        {"name": "at_x", "update": f"{fixed}[x]"},
        {"name": "at_y", "update": f"{fixed}[y]"},
        {"name": "chosen", "update": names or "'the only one'"},
        {"name": "chosen_setting", "update": "length(data('here')) ? data('here')[0].setting : -1"},
    ]


__all__ = ["specification"]

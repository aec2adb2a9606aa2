"""Lines over the horizontal axis through the chosen cell, one with its band a modality."""

from __future__ import annotations

from mmcl_fast.report.spec.content import Content
from mmcl_fast.report.spec.data import csv_address
from mmcl_fast.report.spec.heat_map import TOOLTIP
from mmcl_fast.report.spec.marks import (
    axis,
    band,
    by_modality,
    csv_link,
    ends,
    expression,
    line,
    modality_legend,
    panel,
    text,
    value,
)
from mmcl_fast.report.spec.signals import Json

ENDS = "[extent(axes[x].places)[0] - margin, extent(axes[x].places)[1] + margin]"
WIDTH = "extent(axes[x].places)[1] - extent(axes[x].places)[0]"


def cut(content: Content) -> Json:
    """The panel."""
    saved = csv_address(content.header, "cut")
    labels = expression("axes[x].labels[indexof(axes[x].places, datum.value)]")
    across = axis(
        "x",
        "bottom",
        values=expression("axes[x].places"),
        title=expression("axes[x].title"),
        encode={"labels": {"update": {"text": labels}}},
    )
    return panel(
        ("cut_x", "cut_y", "cut_w", "map_h"),
        name="cut_panel",
        signals=[{"name": "margin", "update": f"0.04 * ({WIDTH}) || 0.5"}],
        scales=_scales(),
        axes=[across, axis("y", "left", grid=True, tickCount=6)],
        legends=[modality_legend("0")],
        marks=[
            _place(),
            by_modality([band("place"), line(("place", "value"))], "cut"),
            _points(),
            text(("0", "-56"), "'Lines: ' + shown", bold=True),
            text(("0", "-38"), "'over ' + axes[x].title + ', through the chosen cell'", faint=True),
            csv_link(("cut_w", "map_h + 52"), saved),
        ],
    )


def _scales() -> list[Json]:
    across = {"domain": expression(ENDS), "range": [0, expression("cut_w")]}
    fields = [("cut", "low"), ("cut", "high")]
    domain = f"of_accuracy ? ({ends(fields, 0.5, 1.0)}) : ({ends(fields)})"
    upward = {"domain": expression(domain), "range": [expression("map_h"), 0]}
    linear = {"type": "linear", "zero": False}
    return [{"name": "x", **linear, **across}, {"name": "y", **linear, "nice": True, **upward}]


def _place() -> Json:
    """A line upward where the chosen cell is."""
    at = expression("scale('x', axes[x].places[at_x])")
    look = {"x": at, "y": value(0), "y2": expression("map_h"), "stroke": value("#e00")}
    return {
        "type": "rule",
        "interactive": False,
        "encode": {"update": look | {"strokeOpacity": value(0.4)}},
    }


def _points() -> Json:
    look = {
        "x": {"scale": "x", "field": "place"},
        "y": {"scale": "y", "field": "value"},
        "fill": {"scale": "modality", "field": "modality"},
        "size": value(45),
        "tooltip": expression(TOOLTIP),
    }
    return {"type": "symbol", "name": "point", "from": {"data": "cut"}, "encode": {"update": look}}


__all__ = ["cut"]

"""The heat map over two axes, with the theory's borders; a click chooses a cell."""

from __future__ import annotations

from mmcl_fast.report.spec.content import Content
from mmcl_fast.report.spec.data import csv_address
from mmcl_fast.report.spec.marks import (
    INK,
    axis,
    csv_link,
    expression,
    panel,
    text,
    value,
)
from mmcl_fast.report.spec.signals import Json

SPREAD = "format(datum.mean, '.6~g') + ' ± ' + format(datum.sd, '.3~g')"
RANGE = (
    "format(datum[quantity + '_least'], '.6~g') + ' to ' + "
    "format(datum[quantity + '_largest'], '.6~g')"
)
TOOLTIP = (
    "{'title': datum.text, 'quantity': names[quantity], 'epoch': when, "
    f"'mean ± s.d.': isValid(datum.mean) ? {SPREAD} : 'none', "
    f"'range, last epoch': isValid(datum[quantity + '_least']) ? {RANGE} : 'none', "
    "'finished runs': datum.finished, 'diverged': datum.diverged, 'failed': datum.failed}"
)
"""What a pointer over a setting shows."""
CELL = {
    "x": "datum['a' + x] * map_w / nx",
    "y": "map_h - (datum['a' + y] + 1) * map_h / ny",
    "width": "map_w / nx",
    "height": "map_h / ny",
}
T1_LOOK = [("white", 4.5, [1, 0]), ("black", 2.2, [1, 0])]
ASSUMPTION_LOOK = [("black", 3.4, [1, 0]), ("white", 1.8, [5, 4])]


def heat_map(content: Content) -> Json:
    """The panel."""
    saved = csv_address(content.header, "map")
    borders = [
        _border(name, end, look)
        for name, looks in (("assumption", ASSUMPTION_LOOK), ("t1", T1_LOOK))
        for look in looks
        for end in ("up", "right")
    ]
    return panel(
        ("map_x", "map_y", "map_w", "map_h"),
        name="map_panel",
        scales=_scales(),
        axes=_axes(),
        legends=[_legend()],
        marks=[
            _ground(),
            _cells(),
            *borders,
            _chosen(),
            text(("0", "-56"), "'Map: ' + shown", bold=True),
            csv_link(("map_w", "map_h + 52"), saved),
        ],
    )


def _scales() -> list[Json]:
    linear = {"type": "linear", "zero": False, "nice": False}
    across = {"domain": [0, expression("nx")], "range": [0, expression("map_w")]}
    upward = {"domain": [0, expression("ny")], "range": [expression("map_h"), 0]}
    colours = {"domain": expression("colours"), "range": {"scheme": "cividis"}, "clamp": True}
    return [
        {"name": "x", **linear, **across},
        {"name": "y", **linear, **upward},
        {"name": "colour", **linear, **colours},
    ]


def _axes() -> list[Json]:
    found = []
    for name, orient in (("x", "bottom"), ("y", "left")):
        labels = expression(f"axes[{name}].labels[floor(datum.value)]")
        one = axis(
            name,
            orient,
            values=expression(f"sequence(0.5, n{name})"),
            title=expression(f"axes[{name}].title"),
            encode={"labels": {"update": {"text": labels}}},
        )
        found.append(one)
    return found


def _legend() -> Json:
    return {
        "fill": "colour",
        "type": "gradient",
        "direction": "horizontal",
        "orient": "none",
        "legendX": 0,
        "legendY": -42,
        "gradientLength": expression("min(map_w, 320)"),
        "gradientThickness": 10,
        "labelFontSize": 11,
        "labelColor": INK,
        "tickCount": 5,
        "format": ".4~g",
    }


def _ground() -> Json:
    """Where no run finished the ground is seen."""
    look = {"width": expression("map_w"), "height": expression("map_h"), "fill": value("#ddd")}
    return {"type": "rect", "interactive": False, "encode": {"update": look}}


def _cells() -> Json:
    look = {name: expression(rule) for name, rule in CELL.items()}
    shown = "isValid(datum.value) ? scale('colour', datum.value) : '#ddd'"
    look |= {
        "fill": expression(shown),
        "tooltip": expression(TOOLTIP),
        "cursor": value("pointer"),
        "description": expression("datum.text + ': ' + datum.value"),
    }
    return {"type": "rect", "name": "cell", "from": {"data": "map"}, "encode": {"update": look}}


def _border(name: str, end: str, look: tuple[str, float, list[int]]) -> Json:
    """Edges of cells: above the lower one, or right of the left one."""
    x, y = CELL["x"], CELL["y"]
    places = {"x": x, "y": y, "x2": f"{x} + map_w / nx", "y2": f"{y} + map_h / ny"}
    if end == "up":
        places["y"] = places["y2"]
    else:
        places["x2"] = x
    colour, width, dash = look
    drawn = {key: expression(rule) for key, rule in places.items()}
    drawn |= {
        "stroke": value(colour),
        "strokeWidth": value(width),
        "strokeDash": value(dash),
        "strokeCap": value("round"),
    }
    return {
        "type": "rule",
        "interactive": False,
        "from": {"data": f"{name}_{end}"},
        "encode": {"update": drawn},
    }


def _chosen() -> Json:
    """The outline of the chosen cell."""
    places = {
        name: rule.replace("datum['a' + x]", "at_x").replace("datum['a' + y]", "at_y")
        for name, rule in CELL.items()
    }
    look = {name: expression(rule) for name, rule in places.items()}
    look |= {"stroke": value("#e00"), "strokeWidth": value(2.5), "fill": value(None)}
    return {"type": "rect", "name": "chosen", "interactive": False, "encode": {"update": look}}


__all__ = ["TOOLTIP", "heat_map"]

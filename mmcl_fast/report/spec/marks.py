"""Small parts that every panel uses."""

from __future__ import annotations

from typing import Any

from mmcl_fast.plotting.style import COLOURS, NAMES
from mmcl_fast.report.spec.signals import Json

INK, FAINT = "#222", "#667"
LINK = "#0a58a8"
FAR = "1e300"
ALONG = {"field": "x"}  # a line joins its points in this order
DASHES = {"single": [1, 0], "multi": [7, 2]}  # as in the other pictures


def expression(rule: str) -> Json:
    """A value that Vega computes."""
    return {"signal": rule}


def value(constant: Any) -> Json:
    """A value that is fixed."""
    return {"value": constant}


def text(place: tuple[str, str], rule: str, *, bold: bool = False, faint: bool = False) -> Json:
    """A text at a place inside a panel."""
    look = {
        "x": expression(place[0]),
        "y": expression(place[1]),
        "text": expression(rule),
        "fontSize": value(13 if bold else 11),
        "fontWeight": value("bold" if bold else "normal"),
        "fill": value(FAINT if faint else INK),
    }
    return {"type": "text", "interactive": False, "encode": {"update": look}}


def csv_link(place: tuple[str, str], address: str) -> Json:
    """A text that saves a CSV file; longer than a browser follows, it says so."""
    fits = f"length({address}) < 2000000"
    look = {
        "x": expression(place[0]),
        "y": expression(place[1]),
        "align": value("right"),
        "fontSize": value(11),
        "text": expression(f"{fits} ? 'save as CSV' : 'too long for CSV: search first'"),
        "fill": value(LINK),
        "cursor": value("pointer"),
        "href": expression(f"{fits} ? {address} : ''"),
    }
    return {"type": "text", "name": "csv", "encode": {"update": look}}


def panel(box: tuple[str, str, str, str], **parts: Any) -> Json:
    """A group at x, y with a width and a height."""
    names = ("x", "y", "width", "height")
    look = {name: expression(rule) for name, rule in zip(names, box, strict=True)}
    return {"type": "group", "encode": {"update": look}, **parts}


def axis(scale: str, orient: str, **more: Any) -> Json:
    """An axis in the look of all."""
    look = {
        "labelColor": INK,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 11,
        "domainColor": "#999",
        "tickColor": "#999",
        "labelOverlap": True,
        "format": ".4~g",
        "gridScale": "x",
        "gridColor": "#eee",
    }
    return {"scale": scale, "orient": orient, **look, **more}


def sparse(data: str) -> str:
    """Whether a curve was evaluated at too few epochs for a line to be read as one."""
    epochs = f"extent(pluck(data('{data}'), 'epoch'))"
    return f"(length(data('{data}')) < 4 && span({epochs}) >= length(data('{data}')))"


def by_modality(marks: list[Json], data: str) -> Json:
    """Marks drawn once for each modality, from the data set `one`."""
    facet = {"name": "one", "data": data, "groupby": "modality"}
    return {"type": "group", "interactive": False, "from": {"facet": facet}, "marks": marks}


def line(
    fields: tuple[str, str], data: str = "one", *, of_run: bool = False, hidden: str = "false"
) -> Json:
    """A line over x, unless an expression hides it; thin for a single run."""
    look: Json = {
        "x": {"scale": "x", "field": fields[0]},
        "y": {"scale": "y", "field": fields[1]},
        "stroke": {"scale": "modality", "field": "modality"},
        "strokeDash": {"scale": "dash", "field": "modality"},
        "strokeWidth": expression(f"{hidden} ? 0 : {0.8 if of_run else 2}"),
    }
    if of_run:
        rule = "'run ' + datum.run + ', seed ' + datum.seed + ', ' + datum.status"
        thin = {"strokeOpacity": value(0.45), "strokeDash": value([1, 0])}
        look |= thin | {"tooltip": expression(rule)}
    return {"type": "line", "from": {"data": data}, "sort": ALONG, "encode": {"update": look}}


def band(field: str, hidden: str = "false") -> Json:
    """The area between low and high over x, unless an expression hides it."""
    look = {
        "x": {"scale": "x", "field": field},
        "y": {"scale": "y", "field": "low"},
        "y2": {"scale": "y", "field": "high"},
        "fill": {"scale": "modality", "field": "modality"},
        "fillOpacity": expression(f"{hidden} ? 0 : 0.2"),
    }
    return {"type": "area", "from": {"data": "one"}, "sort": ALONG, "encode": {"update": look}}


def ends(fields: list[tuple[str, str]], *always: float) -> str:
    """Expression of the least and the largest of fields of data sets, [0, 1] of nothing."""
    extents = [f"extent(pluck(data('{data}'), '{field}'))" for data, field in fields]
    low = [f"(isValid({e}[0]) ? {e}[0] : {FAR})" for e in extents]
    high = [f"(isValid({e}[1]) ? {e}[1] : -{FAR})" for e in extents]
    low, high = ([*part, *map(str, always)] for part in (low, high))
    least, largest = f"min({', '.join(low)})", f"max({', '.join(high)})"
    return f"{least} === {FAR} ? [0, 1] : [{least}, {largest}]"


def scales(modalities: list[str]) -> list[Json]:
    """Colour and dash of a modality."""
    colours = [COLOURS[m] for m in modalities]
    dashes = [DASHES[m] for m in modalities]
    ordinal = {"type": "ordinal", "domain": modalities}
    return [
        {"name": "modality", **ordinal, "range": colours},
        {"name": "dash", **ordinal, "range": dashes},
    ]


def modality_legend(x: str) -> Json:
    """The modalities' colours and dashes, at the upper right of a panel."""
    names = " : ".join(f"datum.value === '{m}' ? '{name}'" for m, name in NAMES.items())
    labels = {"labels": {"update": {"text": expression(f"{names} : datum.value")}}}
    return {
        "stroke": "modality",
        "strokeDash": "dash",
        "symbolType": "stroke",
        "symbolSize": 300,
        "symbolStrokeWidth": 2,
        "direction": "horizontal",
        "orient": "none",
        "legendX": expression(x),
        "legendY": -22,
        "labelFontSize": 11,
        "labelColor": INK,
        "encode": labels,
    }


__all__ = [
    "FAINT",
    "INK",
    "LINK",
    "axis",
    "band",
    "by_modality",
    "csv_link",
    "ends",
    "expression",
    "line",
    "modality_legend",
    "panel",
    "scales",
    "sparse",
    "text",
    "value",
]

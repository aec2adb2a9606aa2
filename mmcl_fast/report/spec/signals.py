"""Signals: what the reader chooses, and where panels lie at the width of the window."""

from __future__ import annotations

from typing import Any

from mmcl_fast.report.spec.content import QUANTITIES, Content

STATISTICS = {
    "mean": "mean over runs",
    "sd": "standard deviation over runs",
    "finished": "number of finished runs",
    "lost": "number of diverged or failed runs",
}
PAGE_ROWS = 15
PICKED = "@cell:click, @row:click"
Json = dict[str, Any]

# Pixels. Two panels a row where the window is wide, else one.
LAYOUT = {
    "wide": "width >= 900",
    "half": "wide ? width / 2 : width",
    "map_x": "80",
    "map_y": "74",
    "map_w": "half - map_x - 24",
    "map_h": "300",
    "cut_x": "wide ? half + 64 : map_x",
    "cut_y": "wide ? map_y : map_y + map_h + 150",
    "cut_w": "half - (wide ? 64 : map_x) - 24",
    "curves_y": "cut_y + map_h + 142",
    "panels": "wide ? 4 : 2",
    "panel_step": "(width - 8) / panels",
    "panel_w": "panel_step - 60",
    "panel_h": "wide ? 170 : 130",
    "table_y": "curves_y + 4 / panels * (panel_h + 66) + 44",
    "row_h": "21",
}


def signals(content: Content) -> list[Json]:
    """Every signal, in the order in which the page shows its selectors."""
    axes = [
        {"name": a.name, "title": a.title, "labels": a.labels, "places": a.places, "scale": a.scale}
        for a in content.axes
    ]
    resized = [{"events": {"source": "window", "type": "resize"}, "update": "containerSize()[0]"}]
    found: list[Json] = [
        {"name": "width", "update": "containerSize()[0]", "on": resized},
        {"name": "axes", "value": axes},
        {"name": "epochs", "value": list(content.epochs)},
        {"name": "names", "value": QUANTITIES},
        {"name": "statistics", "value": STATISTICS},
    ]
    found += _selectors(content)
    found += [{"name": name, "update": rule} for name, rule in LAYOUT.items()]
    rows = f"table_y + row_h * {PAGE_ROWS + 1} + 30"
    found.append({"name": "height", "update": rows})
    return [*found, *_derived(content), *_of_the_table()]


def _selectors(content: Content) -> list[Json]:
    titles = [axis.title for axis in content.axes]
    last = len(content.epochs) - 1
    found = [
        _select(
            "quantity", "Quantity", "ood_accuracy", list(QUANTITIES), list(QUANTITIES.values())
        ),
        _select("statistic", "Statistic", "mean", list(STATISTICS), list(STATISTICS.values())),
    ]
    found += (
        _axis_selectors(titles)
        if len(content.named) > 1
        else [
            {"name": "x", "value": 0},
            {"name": "y", "value": 1},
        ]
    )
    if last:
        slider = {"input": "range", "min": 0, "max": last, "step": 1, "name": "Epoch"}
        found.append({"name": "e", "value": last, "bind": slider})
    else:
        found.append({"name": "e", "value": 0})
    for k, axis in enumerate(content.axes):
        values = list(range(len(axis.labels)))
        picked = [{"events": PICKED, "update": f"datum.a{k}"}]
        one = _select(f"fix_{k}", axis.title, values[len(values) // 2], values, axis.labels)
        found.append(
            (one if len(values) > 1 else {"name": f"fix_{k}", "value": 0}) | {"on": picked}
        )
    return found


def _axis_selectors(titles: list[str]) -> list[Json]:
    numbers = list(range(len(titles)))
    # An axis is not drawn against itself.
    other = {"events": {"signal": "x"}, "update": "y === x ? (x ? 0 : 1) : y"}
    return [
        _select("x", "Horizontal axis", 0, numbers, titles),
        _select("y", "Vertical axis", 1, numbers, titles) | {"on": [other]},
    ]


def _select(name: str, title: str, value: object, options: list[Any], labels: list[str]) -> Json:
    bind = {"input": "select", "options": options, "labels": labels, "name": title}
    return {"name": name, "value": value, "bind": bind}


def _derived(content: Content) -> list[Json]:
    at_the_end = "e === length(epochs) - 1"
    spread = "value_extent[0] === value_extent[1]"
    rules = {
        "when": f"{at_the_end} ? 'last epoch' : 'epoch ' + epochs[e]",
        "counts": "statistic === 'finished' || statistic === 'lost'",
        "shown": "counts ? statistics[statistic] : "
        "(statistic === 'sd' ? 's.d. of ' : '') + names[quantity] + ', ' + when",
        "value_extent": "extent(pluck(data('map'), 'value'))",
        "of_accuracy": "quantity === 'ood_accuracy' && statistic === 'mean'",
        "colours": f"of_accuracy ? {list(content.accuracies)} : !isValid(value_extent[0]) ? [0, 1] "
        f": {spread} ? [value_extent[0] - 1, value_extent[0]] "
        ": value_extent",
        "nx": "length(axes[x].labels)",
        "ny": "length(axes[y].labels)",
    }
    return [{"name": name, "update": rule} for name, rule in rules.items()]


def _of_the_table() -> list[Json]:
    search = {"input": "text", "name": "Table: search", "debounce": 200}
    lost = {"input": "checkbox", "name": "Table: only settings with diverged or failed runs"}
    reset = [{"events": {"signal": s}, "update": "0"} for s in ("words", "lost_only", "sort_by")]
    pages = f"max(0, ceil(length(data('found')) / {PAGE_ROWS}) - 1)"
    turn = [
        {"events": "@before:click", "update": "max(0, page - 1)"},
        {"events": "@after:click", "update": f"min({pages}, page + 1)"},
    ]
    flip = {"events": "@head:click", "update": "datum.key === sort_by ? !descending : false"}
    return [
        {"name": "search", "value": "", "bind": search},
        {"name": "lost_only", "value": False, "bind": lost},
        {"name": "words", "update": "split(trim(lower(search)), ' ')"},
        # Set before sort_by: the key clicked is compared with the one that sorted until then.
        {"name": "descending", "value": False, "on": [flip]},
        {
            "name": "sort_by",
            "value": "a0",
            "on": [{"events": "@head:click", "update": "datum.key"}],
        },
        {"name": "page", "value": 0, "on": [*turn, *reset]},
    ]


__all__ = ["PAGE_ROWS", "Json", "signals"]

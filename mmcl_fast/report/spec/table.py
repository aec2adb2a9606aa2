"""A table of settings: a click on a heading sorts it, one on a row chooses the setting."""

from __future__ import annotations

from dataclasses import dataclass

from mmcl_fast.report.spec.content import Content
from mmcl_fast.report.spec.data import csv_address
from mmcl_fast.report.spec.marks import INK, LINK, csv_link, expression, panel, text, value
from mmcl_fast.report.spec.signals import PAGE_ROWS, Json

LAST = f"max(0, ceil(length(data('found')) / {PAGE_ROWS}) - 1)"


def table(content: Content) -> Json:
    """The panel."""
    saved = csv_address(content.header, "found")
    columns = _columns(content)
    here = f"'page ' + (page + 1) + ' of ' + ({LAST} + 1)"
    total = "length(data('found')) + ' of ' + length(data('settings')) + ' settings'"
    foot = f"row_h * {PAGE_ROWS + 1} + 14"
    return panel(
        ("8", "table_y", "width - 16", f"row_h * {PAGE_ROWS + 1}"),
        name="table_panel",
        marks=[
            text(("0", "-30"), "'Table: ' + names[quantity] + ', ' + when", bold=True),
            text(("0", "-13"), f"{total} + '; a click on a heading sorts'", faint=True),
            _rows(),
            *map(_head, columns),
            *map(_cells, columns),
            _turn("before", "0", foot, "‹ previous"),
            text(("90", foot), here, faint=True),
            _turn("after", "200", foot, "next ›"),
            csv_link(("width - 20", foot), saved),
        ],
    )


def _columns(content: Content) -> list[Column]:
    """Axes, numbers of runs, and the chosen quantity."""
    kinds = [
        (f"a{k}", content.axes[k].title, f"axes[{k}].labels[datum.a{k}]", 1.0)
        for k, _ in content.named
    ]
    digits = "(wide ? '.6~g' : '.4~g')", "(wide ? '.3~g' : '.2~g')"
    kinds += [
        ("finished", "runs", "datum.finished", 0.8),
        ("lost", "lost", "datum.lost", 0.7),
        ("mean", "mean", f"isValid(datum.mean) ? format(datum.mean, {digits[0]}) : 'none'", 1.2),
        ("sd", "s.d.", f"isValid(datum.sd) ? format(datum.sd, {digits[1]}) : 'none'", 1.2),
    ]
    whole = sum(weight for *_, weight in kinds)
    found, left = [], 0.0
    for key, title, rule, weight in kinds:
        found.append(Column(key, title, rule, left / whole, weight / whole))
        left += weight
    return found


@dataclass(frozen=True)
class Column:
    """A column: its key, heading and text, and the shares of the width at which it begins and has.

    The key is a field of a setting, by which a click on the heading sorts.
    """

    key: str
    title: str
    rule: str
    left: float
    share: float

    @property
    def place(self) -> Json:
        """Its left end and the room for a text."""
        return {
            "x": expression(f"6 + {self.left:.4f} * (width - 16)"),
            "limit": expression(f"{self.share:.4f} * (width - 16) - 4"),
            "fontSize": expression("wide ? 12 : 11"),
        }


def _head(column: Column) -> Json:
    arrow = f"sort_by === '{column.key}' ? (descending ? ' ▼' : ' ▲') : ''"
    look = column.place | {
        "y": expression("row_h - 6"),
        "text": expression(f"'{column.title}' + ({arrow})"),
        "fill": value(LINK),
        "cursor": value("pointer"),
    }
    # The key is the mark's datum, which the signals read.
    key = {"name": "key", "values": [{"key": column.key}]}
    mark = {"type": "text", "name": "head", "from": {"data": "key"}, "encode": {"update": look}}
    return {"type": "group", "data": [key], "marks": [mark]}


def _rows() -> Json:
    y = f"row_h * (datum.number - page * {PAGE_ROWS})"
    chosen = "datum.setting === chosen_setting"
    look = {
        "x": value(0),
        "y": expression(y),
        "width": expression("width - 16"),
        "height": expression("row_h"),
        "fill": expression(f"{chosen} ? '#fde2dc' : datum.number % 2 ? '#f4f5f7' : 'white'"),
        "cursor": value("pointer"),
    }
    return {"type": "rect", "name": "row", "from": {"data": "on_page"}, "encode": {"update": look}}


def _cells(column: Column) -> Json:
    look = column.place | {
        "y": expression(f"row_h * (datum.number - page * {PAGE_ROWS}) + row_h - 6"),
        "text": expression(column.rule),
        "fill": value(INK),
    }
    return {
        "type": "text",
        "interactive": False,
        "from": {"data": "on_page"},
        "encode": {"update": look},
    }


def _turn(name: str, x: str, y: str, words: str) -> Json:
    look = {
        "x": expression(x),
        "y": expression(y),
        "text": value(words),
        "fill": value(LINK),
        "fontSize": value(12),
        "cursor": value("pointer"),
    }
    return {"type": "text", "name": name, "encode": {"update": look}}


__all__ = ["table"]

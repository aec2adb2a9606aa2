"""Curves over epochs of the chosen setting: mean and band, and thin lines of single runs."""

from __future__ import annotations

from mmcl_fast.report.spec.content import QUANTITIES
from mmcl_fast.report.spec.data import csv_address
from mmcl_fast.report.spec.marks import (
    axis,
    band,
    by_modality,
    csv_link,
    ends,
    expression,
    line,
    panel,
    sparse,
    text,
    value,
)
from mmcl_fast.report.spec.signals import Json

SPARSE = sparse("one")


def curves() -> list[Json]:
    """A heading, four panels, and the link that saves them."""
    names = [f"curve_{name}" for name in QUANTITIES]
    saved = csv_address("modality,quantity,epoch,mean,sd", *names)
    heading = panel(
        ("8", "curves_y", "width - 16", "20"),
        marks=[
            text(("0", "-44"), "'Curves of the chosen setting'", bold=True),
            text(("0", "-27"), "chosen", faint=True),
            csv_link(("width - 24", "-44"), saved),
        ],
    )
    return [heading, *(_panel(k, name) for k, name in enumerate(QUANTITIES))]


def _panel(index: int, name: str) -> Json:
    x = f"48 + {index} % panels * panel_step"
    y = f"curves_y + floor({index} / panels) * (panel_h + 66)"
    fields = [(f"curve_{name}", "low"), (f"curve_{name}", "high"), (f"runs_{name}", "value")]
    domain = ends(fields, *((0.5, 1.0) if name == "ood_accuracy" else ()))
    linear = {"type": "linear", "zero": False}
    return panel(
        (x, y, "panel_w", "panel_h"),
        name=f"curve_panel_{name}",
        scales=[
            {
                "name": "x",
                **linear,
                "domain": expression("extent(epochs)"),
                "range": [0, expression("panel_w")],
            },
            {
                "name": "y",
                **linear,
                "nice": True,
                "domain": expression(domain),
                "range": [expression("panel_h"), 0],
            },
        ],
        axes=[
            axis("x", "bottom", title="epoch", tickCount=4),
            axis("y", "left", grid=True, tickCount=5),
        ],
        marks=[
            _single_runs(name),
            by_modality(
                [band("epoch", SPARSE), line(("epoch", "mean"), hidden=SPARSE), _points()],
                f"curve_{name}",
            ),
            _epoch(),
            text(("0", "-8"), f"'{QUANTITIES[name]}'"),
        ],
    )


def _single_runs(name: str) -> Json:
    facet = {"name": "run", "data": f"runs_{name}", "groupby": "run"}
    thin = line(("epoch", "value"), "run", of_run=True, hidden=sparse("run"))
    return {"type": "group", "from": {"facet": facet}, "marks": [thin]}


def _points() -> Json:
    """Markers where a curve has so few epochs that a line between them was not measured."""
    few = f"{SPARSE} ? 50 : length(data('one')) < 30 ? 14 : 0"
    look = {
        "x": {"scale": "x", "field": "epoch"},
        "y": {"scale": "y", "field": "mean"},
        "fill": {"scale": "modality", "field": "modality"},
        "size": expression(few),
    }
    return {"type": "symbol", "from": {"data": "one"}, "encode": {"update": look}}


def _epoch() -> Json:
    """A line upward at the epoch of the map."""
    look = {
        "x": expression("scale('x', epochs[e])"),
        "y": value(0),
        "y2": expression("panel_h"),
        "stroke": value("#e00"),
        "strokeOpacity": value(0.4),
    }
    return {"type": "rule", "interactive": False, "encode": {"update": look}}


__all__ = ["curves"]

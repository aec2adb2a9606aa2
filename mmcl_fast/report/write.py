"""`write_report`: from a store to one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.files import prepare_directory, write_atomically
from mmcl_fast.plotting.style import MODALITIES, accuracy_limits
from mmcl_fast.report.budget import budget
from mmcl_fast.report.dimensions import CONSTANT, Dimension, dimensions, settings_table
from mmcl_fast.report.facts import facts
from mmcl_fast.report.page import page, vega
from mmcl_fast.report.spec.build import specification
from mmcl_fast.report.spec.content import Content
from mmcl_fast.report.statistics import Statistics, gather
from mmcl_fast.report.tables import runs_csv, settings_csv
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.store.conditions import filtered
from mmcl_fast.sweep.store.plan_file import read_plan
from mmcl_fast.sweep.store.status import read_status

SUFFIX = ".html"


@dataclass(frozen=True)
class Report:
    """What `write_report` wrote.

    Attributes:
        path: The file.
        settings: Settings in it.
        runs: Runs of these in the store.
        epochs: Epochs at which it has curves.
        run_curves: Single runs whose curves it has.
    """

    path: Path
    settings: int
    runs: int
    epochs: int
    run_curves: int


def write_report(store: str | Path, out: str | Path, *, where: Sequence[str] = ()) -> Report:
    """Write a report of a store: one HTML file, which a browser opens without a network.

    It has a heat map over any two swept settings with the theory's borders, lines, curves over
    epochs and a table, which answer to selectors and clicks. Means and standard deviations are of
    every finished run. Of a large store the file has the curves at fewer epochs, and fewer curves
    of single runs; it says which.

    Args:
        store: Directory of the store. A sweep that still runs may be reported.
        out: The file, named `*.html`.
        where: Conditions `name=value` or `name=value,value` on the settings.

    Raises: ConfigError: another name, no row in the store, an unknown condition, or more settings
        than a file holds (the message says how many). OutputError: the store cannot be read, or the
        file cannot be written. BackendUnavailableError: vl-convert-python is not installed.
    Cost: One pass over the store. Memory grows with settings, not with runs.
    """
    store, out = Path(store), Path(out)
    if out.suffix != SUFFIX:
        raise ConfigError(f"out: expected a file ending in {SUFFIX}, got {str(out)!r}")
    script = vega()
    status = read_status(store)
    if not status.done:
        raise ConfigError(f"store: expected rows to report, got 0 of {status.runs}")
    plan = read_plan(store)
    table = settings_table(plan)
    table = filtered(table.append_column("row", pa.array(range(len(table)))), where)
    points = plan.points.configs(table["row"].to_pylist())
    setting_of = _settings_of(plan, table["row"].to_numpy())
    held = budget(points, int(np.bincount(setting_of[setting_of >= 0]).max()))
    found = gather(store, setting_of, len(points), held.epochs, held.runs)
    if not any(int(count.sum()) for count in found.counts.values()):
        raise ConfigError("store: expected rows of the chosen settings, got 0")
    axes = dimensions(table, [axis.names[0] for axis in plan.axes if len(axis.names) == 1])
    content = _content(points, axes, held.epochs.tolist(), found)
    about = facts(store, status, plan, table, axes, held, found)
    prepare_directory(out.parent)
    text = page(store.resolve().name, about, specification(content), script)
    write_atomically(out, lambda path: path.write_text(text, encoding="utf-8"))
    runs = sum(int(count.sum()) for count in found.counts.values())
    return Report(out, len(points), runs, len(held.epochs), len(found.runs.run))


def _settings_of(plan: Plan, rows: np.ndarray) -> np.ndarray:
    """Place of each run's setting among the chosen rows; -1: not chosen."""
    place = np.full(len(plan.points), -1, np.int64)
    place[rows] = np.arange(len(rows))
    return place[plan.point_of]


def _content(
    points: list[TrainConfig], axes: list[Dimension], epochs: list[int], found: Statistics
) -> Content:
    """What the specification is made from; a map of a sweep of fewer axes has one row or column."""
    constant = Dimension(CONSTANT, [""], [0.0], "words", np.zeros(len(points), np.int64))
    drawn = [*axes, *[constant] * (2 - len(axes))]
    modality_of = [cfg.modality for cfg in points]
    below_half = any(cfg.has_spurious or (cfg.classes or 2) > 2 for cfg in points)
    return Content(
        axes=drawn,
        modalities=[m for m in MODALITIES if m in modality_of],
        epochs=epochs,
        accuracies=accuracy_limits(below_half=below_half),
        settings=settings_csv(points, drawn, modality_of, found),
        runs=runs_csv(found.runs),
    )


__all__ = ["Report", "write_report"]

"""The data of a report as two CSV texts, which Vega parses: settings, and single runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.borders import log_t1_ratio, margin, theory_point
from mmcl_fast.report.dimensions import Dimension
from mmcl_fast.report.statistics import RunCurves, Statistics
from mmcl_fast.sweep.store.schema import CURVES, STATUSES

FINAL_DIGITS, CURVE_DIGITS, SD_DIGITS = 6, 4, 3
FAR = 1e3  # an infinite log ratio is written as this: its sign is what is used
KINDS = ("mean", "sd", "least", "largest")
Floats = npt.NDArray[np.float64]


def settings_csv(
    points: Sequence[TrainConfig],
    axes: Sequence[Dimension],
    modality_of: Sequence[str],
    found: Statistics,
) -> str:
    """One line a setting: its place on each axis, counts, values, curves and borders.

    A curve is one field, its numbers separated by spaces; what is not finite is empty.
    """
    columns: dict[str, Iterable[object]] = {"setting": range(len(points))}
    columns |= {f"a{k}": axis.index.tolist() for k, axis in enumerate(axes)}
    columns["modality"] = modality_of
    columns |= {status: found.counts[status].tolist() for status in STATUSES}
    kinds = dict(
        zip(KINDS, (found.finals.means, found.finals.sd, found.least, found.largest), strict=True)
    )
    for k, name in enumerate(CURVES):
        for kind, values in kinds.items():
            columns[f"{name}_{kind}"] = _texts(values[:, k], FINAL_DIGITS)
        moments = found.curves[name]
        columns[f"{name}_means"] = [_joined(row, CURVE_DIGITS) for row in moments.means]
        columns[f"{name}_sds"] = [_joined(row, SD_DIGITS) for row in moments.sd]
    places = [theory_point(cfg) for cfg in points]
    both = list(zip(places, modality_of, strict=True))
    ratios = [np.nan if p is None else log_t1_ratio(p, m) for p, m in both]
    columns["t1"] = _texts(np.clip(ratios, -FAR, FAR).tolist(), SD_DIGITS)
    margins = [np.nan if p is None else margin(p, m) for p, m in both]
    columns["assumption"] = _texts(margins, SD_DIGITS)
    return _csv(columns)


def runs_csv(runs: RunCurves) -> str:
    """One line a run: its setting, run_id, seed, status and curves."""
    columns: dict[str, Iterable[object]] = {
        "setting": runs.setting,
        "run": runs.run,
        "seed": runs.seed,
        "status": runs.status,
    }
    for k, name in enumerate(CURVES):
        columns[f"{name}_values"] = [_joined(curves[k], CURVE_DIGITS) for curves in runs.values]
    return _csv(columns)


def _csv(columns: dict[str, Iterable[object]]) -> str:
    """Fields are numbers, names and numbers with spaces: none needs quotes."""
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)])


def _texts(values: Iterable[float], digits: int) -> list[str]:
    """Numbers in so many digits; those that are not finite are empty."""
    return [f"{v:.{digits}g}" if math.isfinite(v) else "" for v in map(float, values)]


def _joined(values: Floats, digits: int) -> str:
    text = " ".join([f"{v:.{digits}g}" for v in values.tolist()])
    return text.replace("nan", "").replace("-inf", "").replace("inf", "")


__all__ = ["runs_csv", "settings_csv"]

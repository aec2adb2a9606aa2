"""Words and looks of a sweep's pictures: labels of columns, looks of values, captions of bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from mmcl_fast.plotting.curves import PANELS
from mmcl_fast.plotting.style import (
    MAP,
    MODALITIES,
    MORE_DASHES,
    MORE_MARKERS,
    NAMES,
    PALETTE,
    look,
    symbol,
)
from mmcl_fast.sweep.store.seed_statistics import Band, Cells

LABELS = {f"final_{name}": f"{title}, last epoch" for name, (title, _) in PANELS.items()}
LABELS |= {name: title for name, (title, _) in PANELS.items()}
BANDS: dict[Band, str] = {
    "sd": "mean ± 1 s.d.",
    "se": "mean ± 1 standard error",
    "quantiles": "median, 25 % to 75 %,",
    "none": "mean",
}


def hue_looks(hue: str, values: Sequence[Any]) -> dict[Any, dict[str, Any]]:
    """Colour, dash and marker of each value; modalities have their own."""
    if hue == "modality":
        return {modality: look(modality) for modality in MODALITIES}
    colours: Sequence[Any] = [PALETTE[k % len(PALETTE)] for k in range(len(values))]
    if all(isinstance(v, int | float) for v in values) and len(values) > 2:
        colours = [tuple(c) for c in mpl.colormaps[MAP](np.linspace(0.0, 0.9, len(values)))]
    return {
        v: {
            "color": colours[k],
            "ls": MORE_DASHES[k % len(MORE_DASHES)],
            "marker": MORE_MARKERS[k % len(MORE_MARKERS)],
            "ms": 4,
        }
        for k, v in enumerate(values)
    }


def hue_label(hue: str, value: Any) -> str:
    """A value's name in a legend."""
    if hue == "modality":
        return NAMES[value]
    return f"{label(hue)} = {value:.4g}" if isinstance(value, float) else f"{label(hue)} = {value}"


def label(name: str) -> str:
    """A column's name on an axis."""
    if name in LABELS:
        return LABELS[name]
    metric = name.removeprefix("final_")
    return symbol(name) if metric == name else f"{metric}, last epoch"


def told(cells: Cells, band: Band, *, chance: bool) -> str:
    """What a line and its band are, of how many seeds, and what the dotted line is."""
    dotted = "; dotted: chance" if chance else ""
    of_seeds = f"{BANDS[band]} over " if int(cells.count.max()) > 1 else ""  # one has no band
    return f"{of_seeds}{seeds(cells)}{left_out(cells)}{dotted}"


def seeds(cells: Cells) -> str:
    """Number of finished runs of a cell."""
    low, high = int(cells.count.min()), int(cells.count.max())
    return f"{low} to {high} seeds" if low < high else f"{high} seed{'s' * (high != 1)}"


def left_out(cells: Cells) -> str:
    """Number of runs without a final value, if any."""
    total = int(cells.left_out.sum())
    return f"; {total} diverged or failed run{'s' * (total != 1)} left out" if total else ""


def order(value: Any) -> tuple[int, Any]:
    """Single before multi; what is not set before numbers and words."""
    names = list(NAMES)
    if value is None or value in names:
        return (0, -1 if value is None else names.index(value))
    return (1, value)


__all__ = ["hue_label", "hue_looks", "label", "left_out", "order", "seeds", "told"]

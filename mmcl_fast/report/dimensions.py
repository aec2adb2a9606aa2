"""The dimensions of a sweep: few columns whose values tell all settings apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mmcl_fast.plotting.style import MODALITIES, is_logarithmic
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.store.conditions import KEYS
from mmcl_fast.sweep.store.schema import DERIVED_NAMES, setting_columns
from mmcl_fast.sweep.store.seed_statistics import coded

Integers = npt.NDArray[np.int64]
TOGETHER = ((1, 2), (3,))  # numbers of columns tried jointly, for settings that were zipped
CONSTANT = ""
"""Name of an axis that is none: a sweep of fewer than two settings is drawn with it."""
TEXTS = {
    CONSTANT: "(none)",
    "n_snr2": "n·SNR²",
    "snr": "SNR",
    "c_mu": "C_μ",
    "mu_norm": "‖μ‖",
    "mu_b_norm": "‖μ̃‖",
    "nu_norm": "‖ν‖",
    "sigma_xi": "σ_ξ",
    "sigma_xi_b": "σ_ξ̃",
    "sigma_eps": "σ_ε",
    "sigma_0": "σ₀",
    "tau": "τ",
    "eta": "η",
    "noise_rate": "growth rate of noise",
    "noise_start": "initial noise activation",
}
"""Symbols of settings in plain text."""


@dataclass(frozen=True)
class Dimension:
    """One column whose values are an axis of the report.

    Attributes:
        name: Column of the store.
        labels: Its values, sorted, as texts that differ.
        places: Position of each value on an axis: a number, its logarithm to base 10 where the axis
            is logarithmic, or its index.
        scale: Which of these: linear, log or words.
        index: Index of each setting's value, [settings].
    """

    name: str
    labels: list[str]
    places: list[float]
    scale: str
    index: Integers

    @property
    def title(self) -> str:
        """The name as axes and selectors show it."""
        return TEXTS.get(self.name, self.name)


def settings_table(plan: Plan) -> pa.Table:
    """Settings and derived quantities of each point of a plan, one row a point."""
    first = np.unique(plan.point_of, return_index=True)[1].astype(np.int64)
    columns = setting_columns(plan, first)
    for name in DERIVED_NAMES:  # C_mu without a signal
        column = columns[name]
        columns[name] = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return pa.table(columns)


def dimensions(table: pa.Table, swept: Iterable[str]) -> list[Dimension]:
    """The dimensions of settings, those that were swept first.

    Args:
        table: Of `settings_table`, or some rows of it; no two are equal.
        swept: Names of the plan's axes that vary alone.

    Returns: Columns that together tell all rows apart: the swept ones; where they do not (settings
        that were zipped, an extended plan), also the fewest others, those whose values make the
        fullest grid. Empty if there is one row.
    """
    found = {name: coded(table[name]) for name in KEYS}
    varying = [name for name in KEYS if len(found[name][1]) > 1]
    chosen = [name for name in swept if name in varying]
    chosen += _others(chosen, varying, {name: found[name][0] for name in varying}, len(table))
    chosen.sort(key=lambda name: name == "modality")  # a map's first axes are numbers
    return [_dimension(name, *_in_order(name, *found[name])) for name in chosen]


def _others(
    chosen: Sequence[str], varying: Sequence[str], index: dict[str, Integers], rows: int
) -> list[str]:
    """The columns to add so that all rows differ."""
    if _different(chosen, index, rows):
        return []
    left = [name for name in varying if name not in chosen]
    # Of columns that do as well, the theory's own; n SNR^2 and n before the SNR.
    left.sort(key=lambda name: (name not in (*DERIVED_NAMES, "n"), name == "snr", name == "n"))
    for counts in TOGETHER:
        sets = [
            names
            for count in counts
            for names in itertools.combinations(left, count)
            if _different([*chosen, *names], index, rows)
        ]
        if sets:
            return list(min(sets, key=lambda names: _grid(names, index)))
    return left


def _grid(names: Iterable[str], index: dict[str, Integers]) -> tuple[int, int]:
    """Cells of the grid of some columns, and values on its axes: the fewer, the fuller it is."""
    sizes = [int(index[name].max()) + 1 for name in names]
    return math.prod(sizes), sum(sizes)


def _different(names: Sequence[str], index: dict[str, Integers], rows: int) -> bool:
    joint = np.zeros(rows, np.int64)
    for name in names:
        joint = np.unique(joint * (index[name].max() + 1) + index[name], return_inverse=True)[1]
    return len(np.unique(joint)) == rows


def _in_order(name: str, index: Integers, values: Sequence[Any]) -> tuple[Integers, Sequence[Any]]:
    """Single-modal before multi-modal, as in every picture; other values stay sorted."""
    if name != "modality":
        return index, values
    order = [values.index(m) for m in MODALITIES if m in values]
    return np.argsort(order)[index], [values[k] for k in order]


def _dimension(name: str, index: Integers, values: Sequence[Any]) -> Dimension:
    numbers = [v for v in values if isinstance(v, int | float)]
    if len(numbers) < len(values):
        scale, places = "words", [float(k) for k in range(len(values))]
    elif is_logarithmic(numbers):
        scale, places = "log", [math.log10(v) for v in numbers]
    else:
        scale, places = "linear", [float(v) for v in numbers]
    return Dimension(name, _labels(values), places, scale, index)


def _labels(values: Sequence[Any]) -> list[str]:
    """Values in the fewest digits, four or more, in which they differ."""
    texts: list[str] = []
    for digits in range(4, 18):
        texts = [
            f"{v:.{digits}g}" if isinstance(v, float) else "none" if v is None else str(v)
            for v in values
        ]
        if len(set(texts)) == len(values):
            break
    return texts


__all__ = ["CONSTANT", "TEXTS", "Dimension", "dimensions", "settings_table"]

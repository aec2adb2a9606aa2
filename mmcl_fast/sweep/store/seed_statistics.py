"""Mean and spread over seeds of the rows of a sweep, refusing to average over settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcl_fast.config import FIELD_NAMES
from mmcl_fast.errors import ConfigError

SEEDS = ("seed", "data_seed", "init_seed")
SETTINGS = tuple(name for name in FIELD_NAMES if name not in SEEDS)
Band = Literal["sd", "se", "quantiles", "none"]
QUARTILES = (0.25, 0.5, 0.75)
DIGITS = 12  # derived columns of equal requested values differ in the last bits

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Statistics of groups of runs that differ in their seeds only.

    Attributes:
        keys: Value of each key column in each cell; cells are sorted by them.
        count: Finished runs of each cell, [cells].
        left_out: Runs that diverged or failed, [cells].
        mean: Mean over the finished runs, [cells], or [cells, epochs + 1] for curves; NaN where
            there is none.
        sd: Sample standard deviation (0 for one run), of the same shape.
        centre: The line of a picture: the mean, or the median where the band is of quantiles.
        low: Lower edge of its band.
        high: Upper edge of its band.
        first: A row of each cell in the table, [cells].
    """

    keys: dict[str, list[Any]]
    count: Integers
    left_out: Integers
    mean: Floats
    sd: Floats
    centre: Floats
    low: Floats
    high: Floats
    first: Integers

    def __len__(self) -> int:
        return len(self.count)

    def where(self, **values: Any) -> Integers:
        """Indices of the cells whose keys have these values."""
        chosen = [
            k
            for k in range(len(self))
            if all(self.keys[name][k] == value for name, value in values.items())
        ]
        return np.array(chosen, np.int64)


def over_seeds(
    table: pa.Table,
    keys: Sequence[str],
    value: str,
    *,
    band: Band = "sd",
    swept: Sequence[str] = (),
) -> Cells:
    """Group rows by key columns and take the mean over seeds of a column.

    Args:
        table: Rows of a store (`sweep.load`): the keys, the value, status, every setting.
        keys: Columns that define the cells: settings or derived quantities.
        value: A number or a curve.
        band: One standard deviation around the mean, its standard error, the quartiles around the
            median, or none.
        swept: Names on the axes of the sweep, with columns in the table. An error names the one
            that varies, not the setting that it determines.

    Raises: ConfigError: a setting that is no key takes several values inside a cell, curves of one
        cell differ in length, or there are no rows.
    """
    if not len(table):
        raise ConfigError("store: expected rows to draw, got none")
    codes = {name: coded(table[name]) for name in dict.fromkeys([*keys, *SETTINGS])}
    joint = np.zeros(len(table), np.int64)
    for name in keys:
        index, values = codes[name]
        joint = np.unique(joint * len(values) + index, return_inverse=True)[1].astype(np.int64)
    first = np.unique(joint, return_index=True)[1]
    _check_settings({name: coded(table[name]) for name in swept} | codes, swept, joint, first)
    finished = np.array(table["status"].to_pylist()) == "finished"
    cells = len(first)
    column = table[value].combine_chunks()
    if pa.types.is_list(column.type):
        rows, mean, sd = _curves(column, joint, finished, cells)
    else:
        rows = column.to_numpy(zero_copy_only=False)[finished].astype(float)
        mean, sd = _scalars(rows, joint[finished], cells)
    count = np.bincount(joint[finished], minlength=cells).astype(np.int64)
    if band == "quantiles":
        low, centre, high = _quantiles(rows, joint[finished], mean)
    else:
        low, centre, high = _around(mean, sd, count, band)
    return Cells(
        keys={name: [codes[name][1][codes[name][0][k]] for k in first] for name in keys},
        count=count,
        left_out=np.bincount(joint[~finished], minlength=cells).astype(np.int64),
        mean=mean,
        sd=sd,
        centre=centre,
        low=low,
        high=high,
        first=first.astype(np.int64),
    )


def coded(column: pa.ChunkedArray) -> tuple[Integers, list[Any]]:
    """Index of each row's value among the sorted values of a column, and the values.

    Equal to 12 digits is equal; a null comes first.
    """
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    given = encoded.dictionary.to_pylist()
    rounded = [float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for v in given]
    values = sorted(set(rounded), key=lambda v: (v is not None, v))
    index_of = {v: k for k, v in enumerate(values)}
    index = np.array([index_of[v] for v in rounded], np.int64)
    return index[encoded.indices.to_numpy(zero_copy_only=False)], values


def _check_settings(
    codes: dict[str, tuple[Integers, list[Any]]],
    swept: Sequence[str],
    joint: Integers,
    first: Integers,
) -> None:
    """Raise ConfigError where a setting varies inside a cell, whose mean would mix experiments."""
    mixed = [
        name
        for name, (index, values) in codes.items()
        if len(values) > 1 and (index != index[first][joint]).any()
    ]
    if not any(name in SETTINGS for name in mixed):
        return
    # Of several that vary, one that was swept; of these, the one with the most values.
    name = max(mixed, key=lambda n: (n in swept, len(codes[n][1])))
    values = codes[name][1]
    shown = ", ".join(f"{_text(v)}" for v in values[:4]) + (", ..." if len(values) > 4 else "")
    raise ConfigError(
        f"{name}: expected one value in each point of the picture, got {shown}; fix it with "
        f"--where {name}={_text(values[0])}, or make it an axis, the --hue, the --row or the --col"
    )


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "none" if value is None else f"{value}"


def _scalars(values: Floats, groups: Integers, cells: int) -> tuple[Floats, Floats]:
    """Mean and sample standard deviation of the values of each group."""
    count = np.bincount(groups, minlength=cells)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(groups, values, cells) / count
        squares = np.bincount(groups, (values - mean[groups]) ** 2, cells)
        sd = np.sqrt(squares / np.maximum(count - 1, 1))
    return mean, np.where(count > 0, sd, np.nan)


def _around(mean: Floats, sd: Floats, count: Integers, band: Band) -> tuple[Floats, Floats, Floats]:
    """Lower edge, mean and upper edge of a band of one standard deviation or error."""
    if band == "none":
        return mean, mean, mean
    runs = np.maximum(count, 1).reshape(-1, *[1] * (mean.ndim - 1))
    half = sd / np.sqrt(runs) if band == "se" else sd
    return mean - half, mean, mean + half


def _quantiles(values: Floats, groups: Integers, like: Floats) -> tuple[Floats, Floats, Floats]:
    """Quartiles of the values of each group, each of the shape of `like`."""
    found = np.full((3, *like.shape), np.nan)
    for cell in np.unique(groups):
        found[:, cell] = np.quantile(values[groups == cell], QUARTILES, axis=0)
    return found[0], found[1], found[2]


def _curves(
    column: pa.ListArray, groups: Integers, finished: npt.NDArray[np.bool_], cells: int
) -> tuple[Floats, Floats, Floats]:
    """The finished curves, which have one length; their mean and sample s.d. in each group."""
    lengths = np.unique(np.diff(column.offsets.to_numpy())[finished])
    if len(lengths) != 1:
        found_lengths = ", ".join(str(k - 1) for k in lengths) or "no finished run"
        raise ConfigError(f"epochs: expected curves of one length, got {found_lengths}")
    rows = column.filter(pa.array(finished)).flatten().to_numpy(zero_copy_only=False)
    curves = rows.reshape(-1, lengths[0]).astype(float)
    mean = np.full((cells, lengths[0]), np.nan)
    sd = mean.copy()
    finished_groups = groups[finished]
    for cell in np.unique(finished_groups):
        chosen = curves[finished_groups == cell]
        mean[cell] = chosen.mean(0)
        sd[cell] = chosen.std(0, ddof=1) if len(chosen) > 1 else 0.0 * chosen[0]
    return curves, mean, sd


__all__ = ["QUARTILES", "SETTINGS", "Band", "Cells", "coded", "over_seeds"]

"""Conditions on rows of a store, as written on a command line: `m=16`, `snr=0.1,0.2`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.store.reader import check_column
from mmcl_fast.sweep.store.schema import DERIVED_NAMES
from mmcl_fast.sweep.store.seed_statistics import SETTINGS

KEYS = (*SETTINGS, *DERIVED_NAMES)
"""Columns that a condition, or an axis of a picture, may name."""
SHOWN = 5e-6  # relative; a value is identified by the six digits that messages show
UNSET = "none"


def filtered(table: pa.Table, conditions: Sequence[str]) -> pa.Table:
    """Rows that meet every condition `name=value` or `name=value,value`.

    Args:
        table: Rows with every column of `KEYS`.
        conditions: Of one name several conditions are alternatives; numbers match to six digits,
            and `none` is a setting without a value.

    Raises: ConfigError: a condition of another form, an unknown name, or a value that no row has.
    """
    wanted: dict[str, list[str]] = {}
    for text in conditions:
        name, values = _parsed(text)
        wanted.setdefault(name, []).extend(values)
    for name, values in wanted.items():
        masks = [_equal(table[name], name, value) for value in values]
        for mask, value in zip(masks, values, strict=True):
            if not mask.any():
                raise ConfigError(
                    f"where: expected a value of {name} in the store ({_there(table[name])}), "
                    f"got {value}"
                )
        table = table.filter(pa.array(np.any(masks, axis=0)))
    return table


def _parsed(text: str) -> tuple[str, list[str]]:
    name, equals, given = (part.strip() for part in text.partition("="))
    values = [value.strip() for value in given.split(",")]
    if not equals or not name or not all(values):
        raise ConfigError(f"where: expected name=value or name=value,value, got {text!r}")
    check_column(name, KEYS)
    return name, values


def _equal(column: pa.ChunkedArray, name: str, text: str) -> npt.NDArray[np.bool_]:
    """Which rows have a value, [rows]."""
    if text == UNSET and column.null_count:
        return np.asarray(column.is_null())
    if pa.types.is_string(column.type):
        return np.array([value == text for value in column.to_pylist()], bool)
    if text == UNSET:
        return np.zeros(len(column), bool)
    try:
        number = float(text)
    except ValueError:
        raise ConfigError(f"where: expected a number for {name}, got {text!r}") from None
    given = np.asarray(column.cast(pa.float64()))
    close: npt.NDArray[np.bool_] = np.isclose(given, number, rtol=SHOWN, atol=0.0)
    return close


def _there(column: pa.ChunkedArray) -> str:
    """The values of a column, as messages show them."""
    values = sorted(set(column.drop_null().to_pylist()))
    shown = dict.fromkeys(v if isinstance(v, str) else f"{v:.6g}" for v in values)
    if column.null_count:
        shown[UNSET] = None
    return ", ".join(shown) or "none"


__all__ = ["KEYS", "filtered"]

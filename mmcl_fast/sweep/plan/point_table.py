"""`Points`: the settings of a plan column by column, as 10^6 configs would take gigabytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import FIELD_NAMES, LATER_FIELDS, TrainConfig
from mmcl_fast.sweep.plan.columns import Codes, Column, distinct_rows, joined, stacked

# Plans of earlier versions keep their hashes: settings that these lacked enter if they differ.
FIRST_FIELDS = tuple(name for name in FIELD_NAMES if name not in LATER_FIELDS)
BLOCK = 1 << 14  # rows whose texts or configs are held at once


class Points(Sequence[TrainConfig]):
    """Settings, each of which is a `TrainConfig` when it is asked for.

    Args:
        columns: The column of each field of `TrainConfig`; valid together, which is not checked.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = {name: columns[name] for name in FIELD_NAMES}

    @classmethod
    def of(cls, configs: Sequence[TrainConfig]) -> Points:
        """The table of some configs, at least one."""
        rows = np.arange(len(configs), dtype=np.int32)
        return cls(
            {name: Column.of([getattr(cfg, name) for cfg in configs], rows) for name in FIELD_NAMES}
        )

    def __len__(self) -> int:
        return len(self._columns[FIELD_NAMES[0]].codes)

    @overload
    def __getitem__(self, index: int) -> TrainConfig: ...
    @overload
    def __getitem__(self, index: slice) -> Points: ...
    def __getitem__(self, index: int | slice) -> TrainConfig | Points:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self.configs([range(len(self))[index]])[0]

    def __iter__(self) -> Iterator[TrainConfig]:
        for start in range(0, len(self), BLOCK):
            yield from self.configs(np.arange(start, min(start + BLOCK, len(self))))

    def __eq__(self, other: object) -> bool:
        """Whether another table has equal settings in the same order."""
        if not isinstance(other, Points):
            return NotImplemented
        return len(self) == len(other) and all(
            np.array_equal(mine.codes, theirs.codes)
            for name in FIELD_NAMES
            for mine, theirs in [joined(self.column(name), other.column(name))]
        )

    __hash__ = None  # type: ignore[assignment]  # as of any table that is compared by its values

    def column(self, name: str) -> Column:
        """A setting of all points."""
        return self._columns[name]

    def values(self, name: str) -> tuple[Any, ...]:
        """The distinct values of a setting."""
        return self._columns[name].values

    def mapped(self, function: Any, names: Sequence[str]) -> Column:
        """The column of a function of a config that reads some settings and no other.

        It is called once for each distinct tuple of these settings.
        """
        columns = [self._columns[name] for name in names]
        first, index = distinct_rows(columns)
        return Column.of(map(function, self.take(first)), index)

    def classes(self, names: Sequence[str]) -> tuple[npt.NDArray[np.int64], Codes]:
        """The first point of each class of equal settings `names`, and each point's class."""
        return distinct_rows([self._columns[name] for name in names])

    def take(self, rows: npt.NDArray[np.integer]) -> Points:
        """The table of some points."""
        return Points({name: column.take(rows) for name, column in self._columns.items()})

    def configs(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> list[TrainConfig]:
        """The configs of some points."""
        index = np.asarray(rows, np.int64)
        fixed = {n: c.values[0] for n, c in self._columns.items() if len(c.values) == 1}
        varying = {n: c for n, c in self._columns.items() if n not in fixed}
        given = [
            [column.values[k] for k in column.codes[index].tolist()] for column in varying.values()
        ]
        if not given:
            return [TrainConfig.of_valid(fixed)] * len(index)
        return [
            TrainConfig.of_valid(fixed | dict(zip(varying, row, strict=True)))
            for row in zip(*given, strict=True)
        ]

    def texts(
        self, numerics: Sequence[str], rows: npt.NDArray[np.integer] | None = None
    ) -> Iterator[str]:
        """JSON lists of each point's settings and arithmetic, joined by line feeds, in pieces.

        Settings that earlier plans lacked follow in an object, where they are not what those mean.

        Args:
            numerics: Identity of each point's arithmetic, [points].
            rows: Points; default: all.
        """
        (fragments, before), later = self._fragments, self._later_texts
        ends: dict[tuple[str, str], str] = {}
        count = len(self) if rows is None else len(rows)
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            part = np.arange(start, stop) if rows is None else rows[start:stop]
            pieces = [[texts[k] for k in codes[part].tolist()] for texts, codes in fragments]
            others = [later.values[k] for k in later.codes[part].tolist()]
            last = list(zip([numerics[k] for k in part.tolist()], others, strict=True))
            ends |= {
                (how, other): f"{before}{_encode(how)}{other}]"
                for how, other in set(last) - ends.keys()
            }
            pieces.append([ends[each] for each in last])
            yield ("\n" if start else "") + "\n".join(map("".join, zip(*pieces, strict=True)))

    @cached_property
    def _fragments(self) -> tuple[list[tuple[list[str], Codes]], str]:
        """Texts of each value of the settings that vary, after those that all share; and the rest.

        What all points share is encoded once.
        """
        fragments, before = [], "["
        for column in (self._columns[name] for name in FIRST_FIELDS):
            if len(column.values) == 1:
                before += _encode(column.values[0]) + ", "
            else:
                texts = [before + _encode(value) + ", " for value in column.values]
                fragments.append((texts, column.codes))
                before = ""
        return fragments, before

    @cached_property
    def _later_texts(self) -> Column:
        """Text of the settings that earlier plans lacked."""
        return self.mapped(_later, tuple(LATER_FIELDS))


def _later(cfg: TrainConfig) -> str:
    """Text of the settings that earlier plans lacked, where they are not what those plans mean."""
    others = {k: value for k, meant in LATER_FIELDS.items() if (value := getattr(cfg, k)) != meant}
    return f", {_encode(others)}" if others else ""


_encode = json.JSONEncoder().encode  # json.dumps would parse its arguments per call


def numbered(one: Points, other: Points, without: Sequence[str] = ()) -> tuple[Codes, Codes]:
    """A number for each point of both tables; equal settings share one.

    Args:
        one: A table; if its points differ, their numbers count from 0.
        other: Another table.
        without: Settings that are ignored.
    """
    names = [name for name in FIELD_NAMES if name not in without]
    _, number = distinct_rows([stacked(one.column(name), other.column(name)) for name in names])
    return number[: len(one)], number[len(one) :]


def stacked_points(one: Points, other: Points) -> Points:
    """The points of both tables, one after the other."""
    return Points({n: stacked(one.column(n), other.column(n)) for n in FIELD_NAMES})


__all__ = ["FIRST_FIELDS", "Points", "numbered", "stacked_points"]

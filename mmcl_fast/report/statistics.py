"""Statistics of every setting of a store in one pass over its parts, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcl_fast.sweep.store.reader import read_parts
from mmcl_fast.sweep.store.schema import CURVES, STATUSES

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
FINALS = tuple(f"final_{name}" for name in CURVES)


class Moments:
    """Mean and sample standard deviation of rows of numbers, by group, updated batch by batch.

    Args:
        groups: Number of groups.
        width: Numbers of a row.
    """

    def __init__(self, groups: int, width: int) -> None:
        self.count = np.zeros(groups, np.int64)
        self.mean = np.zeros((groups, width))
        self._squares = np.zeros((groups, width))

    def add(self, rows: Floats, group_of: Integers) -> None:
        """Add rows, [rows, width], whose groups are sorted, [rows].

        Groups of batches are merged by the formula of Chan, Golub and LeVeque (1979).
        """
        if not len(rows):
            return
        starts = np.flatnonzero(np.diff(group_of, prepend=group_of[0] - 1))
        groups = group_of[starts]
        count = np.diff(starts, append=len(rows))[:, None]
        with np.errstate(invalid="ignore"):  # an accuracy not evaluated is NaN
            mean = np.add.reduceat(rows, starts, axis=0) / count
            deviations = rows - np.repeat(mean, count[:, 0], axis=0)
            squares = np.add.reduceat(deviations * deviations, starts, axis=0)
            before = self.count[groups][:, None]
            total = before + count
            step = mean - self.mean[groups]
            self.mean[groups] += step * count / total
            self._squares[groups] += squares + step * step * before * count / total
        self.count[groups] = total[:, 0]

    @property
    def sd(self) -> Floats:
        """Sample standard deviation, 0 for one row, NaN for none, [groups, width]."""
        sd = np.sqrt(self._squares / np.maximum(self.count - 1, 1)[:, None])
        return np.where(self.count[:, None] > 0, sd, np.nan)

    @property
    def means(self) -> Floats:
        """Mean, NaN for no row, [groups, width]."""
        return np.where(self.count[:, None] > 0, self.mean, np.nan)


@dataclass
class RunCurves:
    """Curves of single runs, in the order in which they were read."""

    setting: list[int] = field(default_factory=list)
    run: list[int] = field(default_factory=list)
    seed: list[int] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    """Of each run, [curves, stored epochs]; NaN where not evaluated."""


@dataclass(frozen=True)
class Statistics:
    """What a report shows of each setting.

    Attributes:
        counts: Runs by status, each [settings].
        finals: Of the last epoch's values of the finished runs, in the order of `CURVES`.
        least: Their least value, [settings, 4]; infinity without a finished run.
        largest: Their largest value.
        curves: Of each curve at the stored epochs, over the finished runs.
        runs: Curves of the first runs of each setting.
        errors: Number of failed runs by their error.
    """

    counts: dict[str, Integers]
    finals: Moments
    least: Floats
    largest: Floats
    curves: dict[str, Moments]
    runs: RunCurves
    errors: dict[str, int]


def gather(
    store: Path, setting_of: Integers, settings: int, epochs: Integers, runs_shown: int
) -> Statistics:
    """Read a store once, part by part.

    Args:
        store: Directory of the store.
        setting_of: Setting of each run of the plan, -1 for runs to leave out, [runs].
        settings: Number of settings.
        epochs: The epochs at which curves are kept, increasing.
        runs_shown: Number of runs of each setting, by run_id, whose own curves are kept.
    """
    found = Statistics(
        counts={status: np.zeros(settings, np.int64) for status in STATUSES},
        finals=Moments(settings, len(FINALS)),
        least=np.full((settings, len(FINALS)), np.inf),
        largest=np.full((settings, len(FINALS)), -np.inf),
        curves={name: Moments(settings, len(epochs)) for name in CURVES},
        runs=RunCurves(),
        errors={},
    )
    shown = _first(setting_of, settings, runs_shown)
    columns = ["run_id", "seed", "status", "error", *FINALS, *CURVES]
    for part in read_parts(store, columns)[1]:
        of = setting_of[part["run_id"].to_numpy()]
        chosen = of >= 0
        if chosen.all():
            _add(found, part, of, epochs, shown)
        elif chosen.any():
            _add(found, part.filter(pa.array(chosen)), of[chosen], epochs, shown)
    return found


def _first(setting_of: Integers, settings: int, count: int) -> npt.NDArray[np.bool_]:
    """Whether a run is among the first `count` of its setting, [runs]."""
    order = np.argsort(setting_of, kind="stable")
    ordered = setting_of[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    first = np.empty(len(order), bool)
    first[order] = (rank < count) & (ordered >= 0)
    return first


def _add(
    found: Statistics,
    part: pa.Table,
    of: Integers,
    epochs: Integers,
    shown: npt.NDArray[np.bool_],
) -> None:
    status = np.array(part["status"].to_pylist())
    for name, count in found.counts.items():
        np.add.at(count, of[status == name], 1)
    for error in part["error"].drop_null().to_pylist():
        found.errors[error] = found.errors.get(error, 0) + 1
    finished = np.flatnonzero(status == "finished")
    order = finished[np.argsort(of[finished], kind="stable")]
    finals = np.column_stack([part[name].to_numpy() for name in FINALS])[order]
    found.finals.add(finals, of[order])
    np.minimum.at(found.least, of[order], finals)
    np.maximum.at(found.largest, of[order], finals)
    chosen = np.flatnonzero(shown[part["run_id"].to_numpy()])
    kept = np.full((len(chosen), len(CURVES), len(epochs)), np.nan)
    for k, name in enumerate(CURVES):
        for rows, there, values in _blocks(part[name], epochs):
            place = np.full(len(part), -1)
            place[rows] = np.arange(len(rows))
            mine = order[place[order] >= 0]
            wide = np.full((len(mine), len(epochs)), np.nan)
            wide[:, there] = values[place[mine]]
            found.curves[name].add(wide, of[mine])
            some = place[chosen] >= 0
            columns = np.flatnonzero(there)
            kept[np.flatnonzero(some)[:, None], k, columns] = values[place[chosen[some]]]
    found.runs.setting += of[chosen].tolist()
    found.runs.run += part["run_id"].to_numpy()[chosen].tolist()
    found.runs.seed += part["seed"].to_numpy()[chosen].tolist()
    found.runs.status += status[chosen].tolist()
    found.runs.values += list(kept)


def _blocks(
    column: pa.ChunkedArray, epochs: Integers
) -> Iterator[tuple[Integers, npt.NDArray[np.bool_], Floats]]:
    """Curves of equal length: their rows, which of the epochs they have, and values there."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    starts = lists.offsets.to_numpy()[:-1]
    flat = lists.values.to_numpy(zero_copy_only=False)
    for length in np.unique(lengths[lengths > 0]):
        rows = np.flatnonzero(lengths == length)
        there = epochs < length
        first = starts[rows[0]]
        if (np.diff(starts[rows]) == length).all():  # a view, without a copy of every epoch
            whole = flat[first : first + len(rows) * length].reshape(len(rows), length)
            values = whole[:, epochs[there]]
        else:
            values = flat[starts[rows][:, None] + epochs[there]]
        yield rows, there, values.astype(np.float64)


__all__ = ["FINALS", "Moments", "RunCurves", "Statistics", "gather"]

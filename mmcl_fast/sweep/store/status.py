"""Progress of a sweep, from its store alone, on any machine, during or after it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from mmcl_fast.errors import OutputError
from mmcl_fast.sweep.store.drivers import Driver, driver_files, read_driver
from mmcl_fast.sweep.store.outlook import Slow, rate, seconds_left, slowest, swept_settings
from mmcl_fast.sweep.store.place import require_plan
from mmcl_fast.sweep.store.plan_file import read_outline, read_plan
from mmcl_fast.sweep.store.store import PartInfo, Store, not_a_part, part_info
from mmcl_fast.sweep.store.verify import verified_info

FileKey = tuple[str, int, int, int]
"""Name, file number, size and time of a file."""


@dataclass(frozen=True)
class Status:
    """Progress of a sweep.

    Attributes:
        runs: Runs of the plan.
        done: Rows in the store.
        shards: Shards of the plan.
        parts: Parts in the store.
        counts: Rows by status.
        retried: Worker deaths whose shard another worker completed.
        put_away: Quarantined shards; the next call of `run_sweep` retries them.
        bad: Reasons why files in the store are unusable, by file name.
        rate: Runs per second over the last ten minutes of work, or None: too few parts. While a
            driver runs, up to now.
        seconds_left: Remaining time at that rate, or until the last shard in hand ends; None:
            unknown, as where a worker is silent, or a shard takes longer than any before.
        busy_seconds: Training time, summed over workers.
        machines: Processors or GPUs that computed parts.
        drivers: Processes at work, and those that reported last some time ago.
        now: When the status was read, seconds since 1970.
        slowest: Shards whose runs took longest.
    """

    runs: int
    done: int
    shards: int
    parts: int
    counts: dict[str, int]
    retried: int
    put_away: list[int]
    bad: dict[str, str]
    rate: float | None
    seconds_left: float | None
    busy_seconds: float
    machines: list[str]
    drivers: list[Driver] = field(default_factory=list)
    now: float = 0.0
    slowest: list[Slow] = field(default_factory=list)

    @property
    def is_stuck(self) -> bool:
        """Whether all that is left is quarantined, and no driver is at work to retry it."""
        left = self.shards - self.parts
        at_work = any(not driver.is_lost(self.now) for driver in self.drivers)
        return 0 < left == len(self.put_away) and not at_work


class StatusReader:
    """Reads the status of a store again and again.

    A part never changes under its name, so each is read once, and again only if its size, time or
    file number is another; likewise the plan.

    Args:
        store: Directory of the store.
        verify: See `read_status`; what was verified once is not read again either.
    """

    def __init__(self, store: str | Path, *, verify: bool = False) -> None:
        self._store, self._verify = Store(Path(store)), verify
        self._plan_key: FileKey | None = None
        self._infos: dict[FileKey, PartInfo] = {}
        self._settings: dict[FileKey, dict[str, str]] = {}

    def read(self) -> Status:
        """The status now. Raises as `read_status` does."""
        parts, others = self._store.listing()  # before the plan, which another process may extend
        self._read_plan()
        unusable = {path.name: str(not_a_part(path, "a name that no part has")) for path in others}
        infos = []
        for path in parts.values():
            try:
                infos.append(self._info(path))
            except OutputError as error:
                unusable[path.name] = str(error)
        drivers = []
        for path in driver_files(self._store.path):
            try:
                drivers.append(read_driver(path))
            except OutputError as error:
                unusable[path.name] = str(error)
        try:
            slow = slowest(infos, self._outline, lambda shard: self._swept(parts[shard]))
        except OutputError as error:
            slow = []
            unusable["slowest runs"] = str(error)
        return self._status(infos, drivers, slow, unusable)

    def _read_plan(self) -> None:
        key = _file_key(require_plan(self._store.path))
        if key == self._plan_key:
            return
        self._outline = read_outline(self._store.path, runs=self._verify)
        self._plan = read_plan(self._store.path) if self._verify else None
        self._infos.clear()  # compared with another plan
        self._plan_key = key

    def _info(self, path: Path) -> PartInfo:
        key = _file_key(path)
        if key not in self._infos:
            if self._plan is None:
                info = part_info(path, self._outline, whole=False)
            else:
                info = verified_info(path, self._outline, self._plan)
            self._infos[key] = info
        return self._infos[key]

    def _swept(self, path: Path) -> dict[str, str]:
        key = _file_key(path)
        if key not in self._settings:
            self._settings[key] = swept_settings(path, self._outline.swept)
        return self._settings[key]

    def _status(
        self,
        infos: list[PartInfo],
        drivers: list[Driver],
        slow: list[Slow],
        unusable: dict[str, str],
    ) -> Status:
        now, plan = time.time(), self._outline
        live = [driver for driver in drivers if not driver.is_lost(now)]
        recent = rate(infos, now if live else None)
        counts: dict[str, int] = {}
        for info in infos:
            for status, count in info.counts.items():
                counts[status] = counts.get(status, 0) + count
        return Status(
            runs=plan.runs,
            done=sum(info.runs for info in infos),
            shards=plan.shards,
            parts=len(infos),
            counts=counts,
            retried=sum(info.attempt - 1 for info in infos),
            put_away=self._store.quarantined(),
            bad=unusable,
            rate=recent,
            seconds_left=seconds_left(infos, plan, live, recent),
            busy_seconds=sum(info.seconds for info in infos),
            machines=sorted({_machine(info) for info in infos}),
            drivers=drivers,
            now=now,
            slowest=slow,
        )


def read_status(store: str | Path, *, verify: bool = False) -> Status:
    """Read the status of a store.

    Args:
        store: Directory of the store.
        verify: Read every file whole: compare it with the digest in it, and every row's run id,
            status, settings and seeds with the plan. Otherwise the parts' footers are read, and
            compared with their digests.

    Raises: OutputError: there is no store. DamagedFileError: its plan is damaged.
    """
    return StatusReader(store, verify=verify).read()


def _file_key(path: Path) -> FileKey:
    """What tells a file from another of its name; of none, its name alone."""
    try:
        found = path.stat()
    except OSError:  # whoever opens it says so
        return path.name, 0, 0, 0
    return path.name, found.st_ino, found.st_size, found.st_mtime_ns


def _machine(info: PartInfo) -> str:
    made = info.provenance.get("environment", {})
    known = [made.get("cpu"), info.provenance.get("instruction_set")]
    return str(made.get("gpu", ", ".join(map(str, filter(None, known))) or "unknown"))


__all__ = ["Status", "StatusReader", "read_status"]

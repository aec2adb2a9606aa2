"""What the processes that drive a sweep are at, as files of its store: one of each driver.

    STORE/drivers/HOST-PROCESS.json

They inform `mmcl status`, on any machine; results do not depend on them, and removing them is safe.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mmcl_fast.errors import OutputError
from mmcl_fast.files import prepare_directory, write_atomically

FOLDER = "drivers"  # of a store
REPORT_SECONDS = 5.0
LOST_SECONDS = 60.0
"""Without a report after which a driver counts as lost: killed, or on a machine that is down."""
FORGOTTEN_SECONDS = 3600.0
SILENT_SECONDS = 30.0
"""Without CPU time after which a worker is named as silent."""


@dataclass(frozen=True)
class Work:
    """A shard in hand.

    Attributes:
        shard: Index of the shard.
        seconds: For how long.
        silent: Seconds since its worker was last seen to compute; None: unknown (Ray).
    """

    shard: int
    seconds: float
    silent: float | None

    @property
    def is_silent(self) -> bool:
        """Whether its worker is stopped or blocked, as far as is known."""
        return self.silent is not None and self.silent >= SILENT_SECONDS


@dataclass(frozen=True)
class Driver:
    """A process that drives the sweep.

    Attributes:
        host: Name of its machine.
        process: Its process id there.
        workers: Shards that it computes at a time.
        written: When it reported, seconds since 1970.
        work: Shards in hand.
    """

    host: str
    process: int
    workers: int
    written: float
    work: tuple[Work, ...]

    @property
    def name(self) -> str:
        """Host and process."""
        return f"{self.host}-{self.process}"

    def is_lost(self, now: float) -> bool:
        """Whether its last report is too old."""
        return now - self.written > LOST_SECONDS


def report(store: Path, driver: Driver) -> None:
    """Write what a driver is at."""
    folder = prepare_directory(store / FOLDER)
    text = json.dumps(asdict(driver))
    write_atomically(
        folder / f"{driver.name}.json", lambda path: path.write_text(text, encoding="utf-8")
    )


def withdraw(store: Path, driver: Driver) -> None:
    """Remove a driver's file, and those of drivers that were lost long ago."""
    folder = store / FOLDER
    horizon = time.time() - FORGOTTEN_SECONDS
    for path in driver_files(store):
        with suppress(OSError):  # it is gone, or the store is; neither matters to a result
            if path.stem == driver.name or path.stat().st_mtime < horizon:
                path.unlink()
    with suppress(OSError):  # others are at work, or it has not reported yet
        folder.rmdir()


def read_driver(path: Path) -> Driver:
    """What a driver is at.

    Raises: OutputError: the file, which is named, is no report.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        work = tuple(Work(**each) for each in told.pop("work"))
        driver = Driver(**told, work=work)
        float(driver.written)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise OutputError(
            f"{path.name}: expected a driver's report in {path.parent}, got another file "
            f"({error}); remove it"
        ) from error
    return driver


def driver_files(store: Path) -> list[Path]:
    """Files of the drivers of a store."""
    return sorted((store / FOLDER).glob("[!.]*.json"))


__all__ = [
    "FOLDER",
    "REPORT_SECONDS",
    "SILENT_SECONDS",
    "Driver",
    "Work",
    "driver_files",
    "read_driver",
    "report",
    "withdraw",
]

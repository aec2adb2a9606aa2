"""Progress of a sweep, from its store alone, on any machine, during or after it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from mmcl_fast.errors import OutputError
from mmcl_fast.sweep.store.drivers import Driver, driver_files, read_driver
from mmcl_fast.sweep.store.outlook import Slow, rate, seconds_left, slowest
from mmcl_fast.sweep.store.plan_file import read_outline, read_plan
from mmcl_fast.sweep.store.store import PartInfo, Store, not_a_part, part_info
from mmcl_fast.sweep.store.verify import verified_info


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


def read_status(store: str | Path, *, verify: bool = False) -> Status:
    """Read the status of a store.

    Args:
        store: Directory of the store.
        verify: Read every file whole: compare it with the digest in it, and every row's run id,
            status, settings and seeds with the plan. Otherwise the parts' footers are read, and
            compared with their digests.

    Raises: OutputError: there is no store. DamagedFileError: its plan is damaged.
    """
    folder = Store(Path(store))
    parts, others = folder.listing()  # before the plan, which another process may extend
    plan = read_outline(folder.path, runs=verify)
    planned = read_plan(folder.path) if verify else None
    unusable = {path.name: str(not_a_part(path, "a name that no part has")) for path in others}
    infos = []
    for path in parts.values():
        try:
            if planned is None:
                infos.append(part_info(path, plan, whole=False))
            else:
                infos.append(verified_info(path, plan, planned))
        except OutputError as error:
            unusable[path.name] = str(error)
    drivers = []
    for path in driver_files(folder.path):
        try:
            drivers.append(read_driver(path))
        except OutputError as error:
            unusable[path.name] = str(error)
    now = time.time()
    live = [driver for driver in drivers if not driver.is_lost(now)]
    recent = rate(infos, now if live else None)
    slow: list[Slow] = []
    try:
        slow = slowest(infos, parts, plan)
    except OutputError as error:
        unusable["slowest runs"] = str(error)
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
        put_away=folder.quarantined(),
        bad=unusable,
        rate=recent,
        seconds_left=seconds_left(infos, plan, live, recent),
        busy_seconds=sum(info.seconds for info in infos),
        machines=sorted({_machine(info) for info in infos}),
        drivers=drivers,
        now=now,
        slowest=slow,
    )


def _machine(info: PartInfo) -> str:
    made = info.provenance.get("environment", {})
    known = [made.get("cpu"), info.provenance.get("instruction_set")]
    return str(made.get("gpu", ", ".join(map(str, filter(None, known))) or "unknown"))


__all__ = ["Status", "read_status"]

"""Progress of a sweep, from its store alone, on any machine, during or after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcl_fast.errors import OutputError
from mmcl_fast.sweep.store.plan_file import read_outline, read_plan
from mmcl_fast.sweep.store.store import PartInfo, Store, not_a_part, part_info
from mmcl_fast.sweep.store.verify import verified_info

RECENT_SECONDS = 600.0


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
        rate: Runs per second over the last ten minutes of work, or None: too few parts.
        seconds_left: Remaining time at that rate, or None.
        busy_seconds: Training time, summed over workers.
        machines: Processors or GPUs that computed parts.
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
    done = sum(info.runs for info in infos)
    rate = _rate(infos)
    counts: dict[str, int] = {}
    for info in infos:
        for status, count in info.counts.items():
            counts[status] = counts.get(status, 0) + count
    return Status(
        runs=plan.runs,
        done=done,
        shards=plan.shards,
        parts=len(infos),
        counts=counts,
        retried=sum(info.attempt - 1 for info in infos),
        put_away=folder.quarantined(),
        bad=unusable,
        rate=rate,
        seconds_left=None if rate is None else (plan.runs - done) / rate,
        busy_seconds=sum(info.seconds for info in infos),
        machines=sorted({_machine(info) for info in infos}),
    )


def _rate(infos: list[PartInfo]) -> float | None:
    """Runs per second between the first and the last part of the last `RECENT_SECONDS`."""
    if len(infos) < 2:
        return None
    ends = np.array([info.finished for info in infos])
    runs = np.array([info.runs for info in infos])
    recent = ends >= ends.max() - RECENT_SECONDS
    if recent.sum() < 2 or ends[recent].min() == ends.max():
        return None
    # The first part's work precedes its end, where the interval begins.
    first = ends == ends[recent].min()
    return float(runs[recent & ~first].sum() / (ends.max() - ends[recent].min()))


def _machine(info: PartInfo) -> str:
    made = info.provenance.get("environment", {})
    known = [made.get("cpu"), info.provenance.get("instruction_set")]
    return str(made.get("gpu", ", ".join(map(str, filter(None, known))) or "unknown"))


__all__ = ["Status", "read_status"]

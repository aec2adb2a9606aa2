"""The interface of a worker pool, and the loop that assigns shards and survives dead workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.sweep.execute.shard import compute
from mmcl_fast.sweep.execute.versions import MARKED, check_numerics
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.store.plan_file import read_plan
from mmcl_fast.sweep.store.store import Store, provenance


@dataclass(frozen=True)
class Job:
    """A shard to compute.

    Attributes:
        store: Directory of the store.
        shard: Index of the shard.
        attempt: Number of workers given this shard, including the next one.
        any_engine: Use another engine where the plan's cannot run.
    """

    store: str
    shard: int
    attempt: int
    any_engine: bool = False


@dataclass(frozen=True)
class Done:
    """A shard whose part is published.

    Attributes:
        shard: Index of the shard.
        counts: Rows by status.
        seconds: Time spent training.
    """

    shard: int
    counts: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Died:
    """A worker died with its shard: killed, out of memory, a lost node."""

    shard: int
    reason: str


@dataclass(frozen=True)
class Broken:
    """An error that a retry would not avoid: a full disk, a store that disappeared."""

    reason: str


@dataclass(frozen=True)
class Quarantined:
    """A shard that this call does not retry."""

    shard: int
    deaths: int
    reason: str


Outcome = Done | Died | Broken
Event = Done | Died | Quarantined


class Pool(ABC):
    """Workers, stopped on leaving the context; shards in progress are lost and recomputed later."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    @abstractmethod
    def slots(self) -> int:
        """Number of concurrent jobs."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Start a job."""

    @abstractmethod
    def wait(self) -> list[Outcome]:
        """Block until at least one job ends; return the outcomes."""

    def silent_seconds(self) -> Mapping[int, float]:
        """Seconds since a job's worker was last seen to compute, by shard, where that is known."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Stop the workers."""


def drive(
    pool: Pool,
    store: Store,
    jobs: Sequence[Job],
    *,
    max_deaths: int,
    told: Callable[[Event], None],
) -> list[int]:
    """Run every job; a dead worker's job is resubmitted, until `max_deaths` workers died of it.

    Args:
        pool: Where to run them.
        store: Store of the results; records quarantined shards.
        jobs: Jobs, in the order of submission.
        max_deaths: Worker deaths after which a shard is quarantined.
        told: Called with every event.

    Returns: The quarantined shards.
    Raises: OutputError: parts cannot be written. Published parts stay.
    """
    waiting = deque(jobs)
    running: dict[int, Job] = {}
    deaths: Counter[int] = Counter()
    quarantined = []
    while waiting or running:
        while waiting and len(running) < pool.slots:
            job = waiting.popleft()
            running[job.shard] = job
            pool.submit(job)
        for outcome in pool.wait():
            if isinstance(outcome, Broken):
                raise OutputError(outcome.reason)
            job = running.pop(outcome.shard)
            told(outcome)
            if isinstance(outcome, Done):
                continue
            deaths[job.shard] += 1
            if deaths[job.shard] < max_deaths:
                waiting.append(Job(job.store, job.shard, job.attempt + 1, job.any_engine))
                continue
            quarantined.append(job.shard)
            store.quarantine_shard(job.shard, deaths[job.shard], outcome.reason)
            told(Quarantined(job.shard, deaths[job.shard], outcome.reason))
    return sorted(quarantined)


def perform(job: Job) -> Done | Broken:
    """Perform a job in this process: train, publish, and return the outcome."""
    store = Store(Path(job.store))
    try:
        plan = _PLANS.get(job.store)
        if plan is None or job.shard >= plan.shards:  # extended since
            plan = _PLANS[job.store] = read_plan(store.path)
        if not job.any_engine:
            check_numerics(plan, job.shard)
        rows = compute(plan, job.shard, any_engine=job.any_engine)
        how = {MARKED: job.any_engine}
        store.publish(plan, job.shard, rows, provenance(job.attempt) | how)
    except (OutputError, ConfigError) as error:  # failed runs are rows, not exceptions
        return Broken(str(error))
    statuses: Counter[str] = Counter(rows.table["status"].to_pylist())
    return Done(job.shard, dict(statuses), rows.seconds)


_PLANS: dict[str, Plan] = {}  # by store; a worker computes many shards of one

__all__ = [
    "Broken",
    "Died",
    "Done",
    "Event",
    "Job",
    "Outcome",
    "Pool",
    "Quarantined",
    "drive",
    "perform",
]

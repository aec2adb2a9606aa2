"""What runs shards, whatever it is made of; and the loop that keeps it busy and survives deaths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.sweep.execute.shard import compute
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.store.plan_file import read_plan
from mmcl_fast.sweep.store.store import Store, provenance


@dataclass(frozen=True)
class Job:
    """A shard to compute.

    Attributes:
        store: Directory of the store.
        shard: Which shard.
        attempt: How many workers have had it, this one included.
        any_engine: Take another engine where the plan's cannot run.
    """

    store: str
    shard: int
    attempt: int
    any_engine: bool = False


@dataclass(frozen=True)
class Done:
    """A shard whose part is published.

    Attributes:
        shard: Which shard.
        counts: Rows by status.
        seconds: Time spent training.
    """

    shard: int
    counts: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Died:
    """A worker that went away with its shard: killed, out of memory, a lost node."""

    shard: int
    reason: str


@dataclass(frozen=True)
class Broken:
    """What no other worker would do better: a full disk, a store that went away."""

    reason: str


@dataclass(frozen=True)
class PutAway:
    """A shard that is not tried again in this sweep."""

    shard: int
    deaths: int
    reason: str


Outcome = Done | Died | Broken
Event = Done | Died | PutAway


class Pool(ABC):
    """Workers. Leaving the context stops them; what they were doing is lost, and harmlessly so."""

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
        """How many jobs it takes at a time."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Start a job."""

    @abstractmethod
    def wait(self) -> list[Outcome]:
        """Block until at least one job ends; say how."""

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
    """Run every job; one that a worker died of is given to another, up to `max_deaths` times.

    Args:
        pool: Where to run them.
        store: Where they are published; remembers the shards that were put away.
        jobs: The jobs, in the order in which to start them.
        max_deaths: Workers a shard may cost.
        told: Called with everything that happens.

    Returns: The shards that were put away.
    Raises: OutputError: parts cannot be written. What is published stays.
    """
    waiting = deque(jobs)
    flying: dict[int, Job] = {}
    deaths: Counter[int] = Counter()
    away = []
    while waiting or flying:
        while waiting and len(flying) < pool.slots:
            job = waiting.popleft()
            flying[job.shard] = job
            pool.submit(job)
        for outcome in pool.wait():
            if isinstance(outcome, Broken):
                raise OutputError(outcome.reason)
            job = flying.pop(outcome.shard)
            told(outcome)
            if isinstance(outcome, Done):
                continue
            deaths[job.shard] += 1
            if deaths[job.shard] < max_deaths:
                waiting.append(Job(job.store, job.shard, job.attempt + 1, job.any_engine))
                continue
            away.append(job.shard)
            store.put_away(job.shard, deaths[job.shard], outcome.reason)
            told(PutAway(job.shard, deaths[job.shard], outcome.reason))
    return sorted(away)


def perform(job: Job) -> Done | Broken:
    """Do a job in this process: train, publish, say what came out."""
    store = Store(Path(job.store))
    try:
        plan = _PLANS.get(job.store)
        if plan is None or job.shard >= plan.shards:  # extended since
            plan = _PLANS[job.store] = read_plan(store.path)
        rows = compute(plan, job.shard, any_engine=job.any_engine)
        store.publish(plan, job.shard, rows, provenance(job.attempt))
    except (OutputError, ConfigError) as error:  # runs that raise are rows, no exceptions
        return Broken(str(error))
    statuses: Counter[str] = Counter(rows.table["status"].to_pylist())
    return Done(job.shard, dict(statuses), rows.seconds)


_PLANS: dict[str, Plan] = {}  # a worker serves one store, shard after shard

__all__ = [
    "Broken",
    "Died",
    "Done",
    "Event",
    "Job",
    "Outcome",
    "Pool",
    "PutAway",
    "drive",
    "perform",
]

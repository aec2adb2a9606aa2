"""The interface of a worker pool: jobs, outcomes, and what a worker does with a job."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.sweep.execute.attempt import AGAIN, Attempt, Suspects, note_file, passing
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
        suspects: Runs that other workers died with.
        given_up: Why a run is not trained, by its position in the shard, as text.
    """

    store: str
    shard: int
    attempt: int
    any_engine: bool = False
    suspects: Suspects | None = None
    given_up: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Job:
        """From `dataclasses.asdict`, through JSON."""
        suspects = values.pop("suspects")
        return cls(**values, suspects=None if suspects is None else Suspects(**suspects))

    def attempt_at(self) -> Attempt:
        """How to go about it: from the second attempt on, with notes."""
        note = note_file(Path(self.store), self.shard) if self.attempt > 1 else None
        return Attempt(note, self.suspects, {int(k): why for k, why in self.given_up.items()})


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


class Tally:
    """How many runs diverged or failed, and shards were retried, as a label of progress."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def label(self, event: object) -> str:
        """What has happened so far, the event included."""
        if isinstance(event, Done):
            for name in ("diverged", "failed"):
                self._counts[name] += event.counts.get(name, 0)
        elif isinstance(event, Died):
            self._counts["retried"] += 1
        names = ("diverged", "failed", "retried")
        told = [f"{self._counts[name]} {name}" for name in names if self._counts[name]]
        return ", ".join(told) or "sweep"


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


def perform(job: Job) -> Done | Broken:
    """Perform a job in this process: train, publish, and return the outcome."""
    store = Store(Path(job.store))
    try:
        plan = _PLANS.get(job.store)
        if plan is None or job.shard >= plan.shards:  # extended since
            plan = _PLANS[job.store] = read_plan(store.path)
        if not job.any_engine:
            check_numerics(plan, job.shard)
        attempt = job.attempt_at()
        attempt.begin()
        rows = compute(plan, job.shard, any_engine=job.any_engine, attempt=attempt)
        how = {MARKED: job.any_engine, AGAIN: passing(rows.tracebacks)}
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
    "Tally",
    "perform",
]

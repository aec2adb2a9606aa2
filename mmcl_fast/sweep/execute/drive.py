"""The loop that assigns shards to workers, and survives their deaths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmcl_fast.errors import OutputError
from mmcl_fast.sweep.execute.attempt import forget_notes
from mmcl_fast.sweep.execute.retries import Retries
from mmcl_fast.sweep.execute.worker_pool import Broken, Done, Event, Job, Pool
from mmcl_fast.sweep.store.store import Store


def drive(
    pool: Pool,
    store: Store,
    jobs: Sequence[Job],
    *,
    max_deaths: int,
    told: Callable[[Event], None],
) -> list[int]:
    """Run every job; a dead worker's job is submitted again, as `Retries` says.

    Args:
        pool: Where to run them.
        store: Store of the results; records quarantined shards.
        jobs: Jobs, in the order of submission.
        max_deaths: Worker deaths, not explained by its runs, after which a shard is quarantined.
        told: Called with every event.

    Returns: The quarantined shards.
    Raises: OutputError: parts cannot be written, or workers die whatever they compute. Published
        parts stay.
    """
    forget_notes(store.path, [job.shard for job in jobs])
    retries = Retries(list(jobs), max_deaths, pool.slots)
    running: dict[int, Job] = {}
    quarantined = []
    while retries or running:
        while retries and len(running) < pool.slots:
            job = retries.next()
            running[job.shard] = job
            pool.submit(job)
        for outcome in pool.wait():
            if isinstance(outcome, Broken):
                raise OutputError(outcome.reason)
            job = running.pop(outcome.shard)
            told(outcome)
            if isinstance(outcome, Done):
                retries.done()
                continue
            stopped = retries.died(job, outcome)
            if stopped is not None:
                quarantined.append(job.shard)
                store.quarantine_shard(job.shard, stopped.deaths, stopped.reason)
                told(stopped)
    return sorted(quarantined)


__all__ = ["drive"]

"""What becomes of a shard whose worker died: another attempt, a run given up, or quarantine.

A death that leaves a note is due to one of the runs in hand. They are trained in ever smaller
batches until one run stands alone; if its worker dies again, its row says so, and the others of the
shard are computed. A death without a note counts against the shard.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path

from mmcl_fast.errors import OutputError
from mmcl_fast.sweep.execute.attempt import Note, Suspects, note_file, read_note
from mmcl_fast.sweep.execute.worker_pool import Died, Job, Quarantined

PIECES = 16  # of a batch of suspects: three deaths single one run out of 256
# Signals of an error in the process itself; others come from outside: the kernel, a scheduler.
CRASH = re.compile(r"SIG(SEGV|BUS|ILL|FPE|ABRT|TRAP|SYS)|exit status (?!143)")  # 143: SIGTERM
CRASHES = 2  # of a run alone that show that it is the run
BARREN_DEATHS, BARREN_DEATHS_A_WORKER = 12, 4
"""Deaths in a row, with no run trained in between, that end a sweep; the larger of the two."""
PROBING_DEATHS = 3


class Retries:
    """The queue of a sweep, and its deaths.

    Args:
        jobs: Jobs, in the order of submission.
        max_deaths: Worker deaths, not explained by its runs, after which a shard is quarantined.
        slots: Number of concurrent jobs.
    """

    def __init__(self, jobs: list[Job], max_deaths: int, slots: int) -> None:
        self._waiting = deque(jobs)
        self._max_deaths = max_deaths
        self._most_barren = max(BARREN_DEATHS, BARREN_DEATHS_A_WORKER * slots)
        self._deaths: Counter[int] = Counter()
        self._alone: Counter[tuple[int, int]] = Counter()
        self._barren: list[int] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self) -> Job:
        """Take the next job.

        After some deaths in a row it is alternately one whose suspects may be told apart, and the
        last one not tried: is it every run that kills its worker?
        """
        if len(self._barren) < PROBING_DEATHS:
            return self._waiting.popleft()
        tried = [job for job in self._waiting if job.attempt > 1]
        fresh = [job for job in self._waiting if job.attempt == 1]
        kinds = (tried or fresh, fresh or tried)
        job = kinds[len(self._barren) % 2][-1]
        self._waiting.remove(job)
        return job

    def done(self) -> None:
        """A shard is finished."""
        self._barren.clear()

    def died(self, job: Job, death: Died) -> Quarantined | None:
        """A worker died with a job: queue it again, or return why that is not done.

        Raises: OutputError: workers die whatever they compute.
        """
        note = read_note(note_file(Path(job.store), job.shard)) if job.attempt > 1 else None
        self._check_barren(job, note, death)
        again = self._narrowed(job, note, death)
        if self._deaths[job.shard] >= self._max_deaths:
            return Quarantined(job.shard, self._deaths[job.shard], death.reason)
        self._waiting.append(replace(again, attempt=job.attempt + 1))
        return None

    def _check_barren(self, job: Job, note: Note | None, death: Died) -> None:
        if note is not None and note.trained:
            self._barren.clear()
        self._barren.append(job.shard)
        if len(self._barren) >= self._most_barren:
            raise OutputError(
                f"workers: expected runs that finish, got {len(self._barren)} worker deaths in a "
                f"row with none trained, over {len(set(self._barren))} shards ({death.reason}); "
                "parts that are published stay"
            )

    def _narrowed(self, job: Job, note: Note | None, death: Died) -> Job:
        """The job with what its death says of its runs."""
        if note is None:
            self._deaths[job.shard] += 1
            return job
        known = job.suspects
        if known is not None and (note.first, note.last) == (known.first, known.last):
            self._deaths[job.shard] += note.last - note.first > 1
        elif known is not None and not known.first <= note.first < known.last:
            self._deaths[job.shard] += 1  # elsewhere than before
        if note.last - note.first > 1:
            width = -(-(note.last - note.first) // PIECES)
            return replace(job, suspects=Suspects(note.first, note.last, width))
        self._alone[job.shard, note.first] += 1
        deaths = self._alone[job.shard, note.first]
        crashed = CRASH.search(death.reason)
        if deaths < (min(CRASHES, self._max_deaths) if crashed else self._max_deaths):
            return replace(job, suspects=Suspects(note.first, note.last, 1))
        self._deaths[job.shard] = 0
        kind = "" if crashed else " (passing)"
        why = f"WorkerDied: {deaths} workers died with this run alone: {death.reason}{kind}"
        return replace(job, suspects=None, given_up={**job.given_up, str(note.first): why})


__all__ = ["Retries"]

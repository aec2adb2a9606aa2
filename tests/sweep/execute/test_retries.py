"""A run that kills its workers is found and given up; the others are computed. No process dies."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.errors import OutputError
from mmcl_fast.sweep import load, make_plan, read_status
from mmcl_fast.sweep.execute import shard as shard_module
from mmcl_fast.sweep.execute.attempt import Attempt, Suspects, note_file, passing, read_note
from mmcl_fast.sweep.execute.drive import drive
from mmcl_fast.sweep.execute.worker_pool import Died, Done, Job, Outcome, Pool
from mmcl_fast.sweep.store.store import Store

RUNS = 250  # of a shard, in one batch


class Killed(BaseException):
    """The end of a simulated worker."""


class DeadlyPool(Pool):
    """Workers that die of some runs of a shard, as they would: before any result is returned.

    Args:
        deadly: Whether (shard, position) kills its worker.
        reason: What it is said to have died of.
        slots: Workers.
    """

    def __init__(self, deadly: Callable[[int, int], bool], reason: str, slots: int = 1) -> None:
        self._deadly, self._reason, self._slots = deadly, reason, slots
        self._jobs: deque[Job] = deque()
        self.starts = 0
        self.results: dict[int, list[str]] = {}

    @property
    def slots(self) -> int:
        return self._slots

    def close(self) -> None:
        self._jobs.clear()

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def wait(self) -> list[Outcome]:
        job = self._jobs.popleft()
        self.starts += 1

        def train(runs: Sequence[int]) -> list[str]:
            if any(self._deadly(job.shard, k) for k in runs):
                raise Killed
            return ["trained"] * len(runs)

        attempt = job.attempt_at()
        attempt.begin()
        try:
            self.results[job.shard] = attempt.results(range(RUNS), 0, train)
        except Killed:
            return [Died(job.shard, self._reason)]
        attempt.end()
        return [Done(job.shard, {}, 0.0)]


def run(pool: Pool, folder: Path, shards: int, max_deaths: int = 5) -> list[int]:
    store = Store(folder)
    store.prepare()
    store.quarantine.mkdir()
    note_file(folder, shards - 1).write_text("left by an earlier driver")
    jobs = [Job(str(folder), k, 1) for k in range(shards)]
    return drive(pool, store, jobs, max_deaths=max_deaths, told=lambda event: None)


@pytest.mark.parametrize("position", [0, 77, RUNS - 1])
def test_one_run_that_crashes_is_given_up(position: int, tmp_path: Path) -> None:
    pool = DeadlyPool(lambda shard, k: (shard, k) == (3, position), "SIGSEGV")
    assert run(pool, tmp_path, shards=16) == []
    results = pool.results[3]
    assert [k for k, result in enumerate(results) if result != "trained"] == [position]
    assert results[position] == "WorkerDied: 2 workers died with this run alone: SIGSEGV"
    assert pool.starts == 16 + 5, "once more, as a batch, in 16 pieces, alone, alone again"
    assert not list((tmp_path / "quarantine").iterdir()), "no note is left"


def test_runs_that_crash_in_every_shard(tmp_path: Path) -> None:
    pool = DeadlyPool(lambda shard, k: k in (20 + shard, 200), "exit status 1", slots=2)
    assert run(pool, tmp_path, shards=16) == []
    for shard, results in pool.results.items():
        assert [k for k in range(RUNS) if results[k] != "trained"] == [20 + shard, 200]


def test_kills_from_outside_need_more_to_blame_a_run(tmp_path: Path) -> None:
    """And its row is computed again by the next call."""
    pool = DeadlyPool(lambda shard, k: k == 5, "SIGKILL (out of memory?)")
    assert run(pool, tmp_path, shards=1) == []
    why = pool.results[0][5]
    assert why.startswith("WorkerDied: 5 workers died with this run alone: SIGKILL")
    assert passing({5: why}) == 1


def test_workers_that_die_of_every_run_end_the_sweep(tmp_path: Path) -> None:
    pool = DeadlyPool(lambda shard, k: True, "SIGSEGV", slots=2)
    message = r"expected runs that finish, got 12 worker deaths in a row .* shards \(SIGSEGV\)"
    with pytest.raises(OutputError, match=message):
        run(pool, tmp_path, shards=16)


def test_one_setting_that_always_crashes_leaves_the_others(tmp_path: Path) -> None:
    """Its shards come first; others are tried before workers count as dying of anything."""
    pool = DeadlyPool(lambda shard, k: shard < 8, "SIGSEGV")
    with pytest.raises(OutputError, match="none trained"):
        run(pool, tmp_path, shards=24)
    assert sorted(pool.results) == list(range(8, 24))


def test_deaths_before_any_run_quarantine_the_shard(tmp_path: Path) -> None:
    class Pool(DeadlyPool):
        def wait(self) -> list[Outcome]:
            job = self._jobs[0]
            if job.shard != 1:
                return super().wait()
            self._jobs.popleft()
            return [Died(1, "SIGKILL")]

    pool = Pool(lambda shard, k: False, "")
    assert run(pool, tmp_path, shards=3, max_deaths=2) == [1]
    assert sorted(pool.results) == [0, 2]


def test_pieces_of_an_attempt(tmp_path: Path) -> None:
    trained: list[list[int]] = []

    def train(runs: Sequence[int]) -> list[str]:
        trained.append(list(runs))
        return ["x"] * len(runs)

    note = note_file(tmp_path, 4)
    attempt = Attempt(note, Suspects(2, 7, 3), {8: "given up"})
    attempt.begin()
    assert attempt.results(range(4), 0, train) == ["x"] * 4
    assert attempt.results(range(4, 10), 4, train) == [*"xxxx", "given up", "x"]
    assert trained == [[0, 1], [2, 3], [4], [5, 6], [7], [9]]
    found = read_note(note)
    assert found is not None
    assert (found.first, found.last, found.trained) == (9, 10, 8)
    note.write_text('{"fir')
    assert read_note(note) is None, "a worker may die while it writes"


def test_failures_by_lack_of_memory_are_computed_again(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(TrainConfig(n=12, m=4, epochs=2, data="reduced"), grid={"m": [2, 3]}, seeds=3)
    good = shard_module.train_many
    error: Exception = MemoryError("21 GiB")

    def short_of_memory(configs: Sequence[TrainConfig], **options: object) -> object:
        if any(cfg.m == 3 and cfg.seed == 1 for cfg in configs):
            raise error
        return good(configs, **options)

    monkeypatch.setattr(shard_module, "train_many", short_of_memory)
    assert compute(plan, tmp_path).counts == {"finished": 5, "failed": 1}
    assert load(tmp_path, ["error"])["error"].to_pylist()[4] == "MemoryError: 21 GiB"
    result = compute(plan, tmp_path)
    assert (result.counts, result.computed) == ({"finished": 5, "failed": 1}, 3)
    error = RuntimeError("a bug")
    assert compute(plan, tmp_path).counts == {"finished": 5, "failed": 1}
    assert compute(plan, tmp_path).computed == 0, "a failure of the run itself is kept"
    monkeypatch.setattr(shard_module, "train_many", good)
    assert compute(plan, tmp_path, retry_failed=True).counts == {"finished": 6}
    assert read_status(tmp_path).counts == {"finished": 6}

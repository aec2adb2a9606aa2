"""Sweeps in this process: nothing but the workers' processes is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmcl_fast.sweep import Plan, Policy, SweepResult, run_sweep
from mmcl_fast.sweep.execute import runner
from mmcl_fast.sweep.execute.worker_pool import Job, Outcome, Pool, perform


class InlinePool(Pool):
    """A `worker_pool.Pool` whose one worker is this process."""

    slots = 1

    def __init__(self) -> None:
        self._job: Job | None = None

    def close(self) -> None:
        self._job = None

    def submit(self, job: Job) -> None:
        self._job = job

    def wait(self) -> list[Outcome]:
        assert self._job is not None
        return [perform(self._job)]


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sweep of the test computes in this process."""
    monkeypatch.setattr(runner, "_pool", lambda plan, policy, workers: InlinePool())


@pytest.fixture
def compute(inline: None) -> Callable[..., SweepResult]:
    """`run_sweep` in this process, its policy's fields given by name."""

    def run(plan: Plan, out: Path, **policy: object) -> SweepResult:
        return run_sweep(plan, out, policy=Policy(**policy))

    return run

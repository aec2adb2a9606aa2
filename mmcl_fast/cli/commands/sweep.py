"""`mmcl sweep`: plan a grid of runs, compute those absent from the store, print a summary."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mmcl_fast.config import TrainConfig
from mmcl_fast.files import prepare_directory
from mmcl_fast.progress import Progress, progress
from mmcl_fast.sweep.execute.policy import Policy
from mmcl_fast.sweep.execute.runner import (
    Start,
    SweepResult,
    disk_bytes,
    job_bytes,
    run_sweep,
)
from mmcl_fast.sweep.execute.schedule import chosen_shards, job_seconds
from mmcl_fast.sweep.execute.slurm import JobArray, write_script
from mmcl_fast.sweep.execute.worker_pool import Done, Event, Quarantined, Tally
from mmcl_fast.sweep.plan.additions import with_additions
from mmcl_fast.sweep.plan.axes import Value, Values
from mmcl_fast.sweep.plan.metric_paths import parse_metrics
from mmcl_fast.sweep.plan.modalities import notes
from mmcl_fast.sweep.plan.plan import Plan, make_plan
from mmcl_fast.sweep.plan.shards import seconds_of
from mmcl_fast.sweep.plan.spec_file import Spec
from mmcl_fast.sweep.store.plan_file import read_plan
from mmcl_fast.terminal import printable

INCOMPLETE = 1
# Not passed to jobs; the script sets the last two.
SCRIPT_FLAGS = ("--slurm", "--sbatch", "--setup", "--workers", "--shard")


@dataclass(frozen=True)
class SlurmRequest:
    """A request to write a script instead of computing.

    Attributes:
        jobs: Jobs of the array.
        options: Further `#SBATCH` options.
        setup: Lines of shell before the sweep.
        command: The command line of each job.
    """

    jobs: int
    options: Sequence[str]
    setup: Sequence[str]
    command: Sequence[str]


def sweep_command(  # noqa: PLR0913 - one argument per group of flags
    base: TrainConfig,
    spec: Spec,
    *,
    grid: Mapping[str, Values],
    zipped: Mapping[str, Values],
    additions: Mapping[str, Sequence[Value]],
    metrics: Sequence[str],
    seeds: int | None,
    first_seed: int | None,
    out: Path,
    policy: Policy,
    dry_run: bool,
    slurm: SlurmRequest | None,
) -> int:
    """Run a sweep, or only plan it, or write a Slurm script.

    Args:
        base: Settings that no axis sets.
        spec: The sweep of a file, which the other arguments override.
        grid: Values by setting.
        zipped: Values by setting, varied jointly.
        additions: Further values for the plan of the store, in place of all the above.
        metrics: Own metrics `module:function` or `name=module:function`.
        seeds: Number of seeds per combination.
        first_seed: The first seed.
        out: Directory of the store.
        policy: How to execute it.
        dry_run: Print the plan's size, and stop.
        slurm: Write a script, and stop.

    Returns: Exit status: 0, or 1 if rows failed or are absent.
    """
    if additions:
        plan = with_additions(read_plan(out), additions)
        policy = replace(policy, extend=True)
    else:
        plan = make_plan(
            base,
            grid=dict(spec.grid) | dict(grid),
            zipped=dict(spec.zipped) | dict(zipped),
            seeds=spec.seeds if seeds is None else seeds,
            first_seed=spec.first_seed if first_seed is None else first_seed,
            metrics=spec.metrics | parse_metrics(metrics),
        )
    if dry_run:
        sys.stdout.write(_described(plan) + "\n")
        return 0
    if slurm is not None:
        return _script(plan, out, policy, slurm)
    assigned = sum(plan.shard_size(k) for k in chosen_shards(plan, policy.part))
    with progress(assigned, "runs") as shown:
        result = run_sweep(plan, out, policy=policy, told=_ProgressOfEvents(shown, plan))
    _report(result)
    incomplete = bool(result.put_away) or result.counts.get("failed", 0) > 0
    return INCOMPLETE if incomplete else 0


def _described(plan: Plan) -> str:
    hours = _core_seconds(plan) / 3600
    engines = ", ".join(sorted(plan.points.values("engine")))
    return (
        f"plan {plan.digest[:12]}: {len(plan)} runs ({len(plan.points)} settings), "
        f"{plan.shards} shards, engine {engines}; about {hours:.2g} core-hours and "
        f"{disk_bytes(plan) / 2**20:.0f} MiB" + "".join(f"\n{note}" for note in notes(plan.axes))
    )


def _core_seconds(plan: Plan) -> float:
    counts = np.bincount(plan.point_of)
    return float(np.dot(seconds_of(plan.points, len(plan.metrics)), counts))


def _script(plan: Plan, out: Path, policy: Policy, request: SlurmRequest) -> int:
    prepare_directory(out)
    jobs, cores = min(request.jobs, plan.shards), policy.workers or 1
    gpus = "cuda" in plan.points.values("device")
    array = JobArray(
        jobs=jobs,
        cores=cores,
        seconds=job_seconds(plan, jobs, 1 if gpus else cores),
        gpus=gpus,
        memory=job_bytes(plan, 1 if gpus else cores),
    )
    path = write_script(request.command, array, out, request.options, request.setup)
    line = shlex.join(["sbatch", str(path)])
    sys.stdout.write(f"{_described(plan)}\nwrote {path}; submit it with: {line}\n")
    return 0


class _ProgressOfEvents:
    """Callback of `run_sweep` that prints the plan once it is accepted, and shows progress."""

    def __init__(self, shown: Progress, plan: Plan) -> None:
        self._shown, self._plan, self._done, self._tally = shown, plan, 0, Tally()

    def __call__(self, event: Start | Event) -> None:
        if isinstance(event, Start):
            sys.stdout.write(_described(self._plan) + "\n")
            sys.stdout.flush()
            self._done = event.present
            if event.present:
                sys.stderr.write(f"resuming: {event.present} of {event.runs} runs are there\n")
        elif isinstance(event, Done):
            self._done += sum(event.counts.values())
        elif isinstance(event, Quarantined):
            _report_quarantined(event)
        self._shown.advance(self._tally.label(event), self._done)


def _report_quarantined(event: Quarantined) -> None:
    sys.stderr.write(
        f"mmcl: shard {event.shard} quarantined after {event.deaths} worker deaths "
        f"({printable(event.reason)}); the other shards continue\n"
    )


def _report(result: SweepResult) -> None:
    store = printable(str(result.store))
    table = Table(title=store, show_header=False)
    table.add_row("runs", f"{result.runs}")
    for status in ("finished", "diverged", "failed"):
        if count := result.counts.get(status, 0):
            table.add_row(status, f"{count}")
    if result.put_away:
        table.add_row("quarantined shards", ", ".join(map(str, result.put_away)))
    if result.computed:
        rate = result.computed / result.seconds
        share = result.busy / (result.seconds * result.workers)
        table.add_row("computed now", f"{result.computed} in {result.seconds:.1f} s")
        table.add_row("rate", f"{rate:.0f} runs/s, {result.workers} workers")
        table.add_row("share of worker time in training", f"{share:.0%}")
    Console(markup=False, emoji=False).print(table)
    if result.counts.get("failed"):
        sys.stderr.write(f"mmcl: tracebacks of failed runs: {store}/failures\n")
    if result.put_away:
        sys.stderr.write("mmcl: re-run the same command to retry the quarantined shards\n")


def job_command(arguments: Sequence[str]) -> list[str]:
    """The command line of a Slurm job: this one, without the flags of the script."""
    passed, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in SCRIPT_FLAGS:
            skip = True
        elif argument.partition("=")[0] not in SCRIPT_FLAGS:
            passed.append(argument)
    # This interpreter by its path: a job starts in an environment of its own. -P as for workers.
    return [sys.executable, "-P", "-m", "mmcl_fast.cli", *passed]


__all__ = ["SlurmRequest", "job_command", "sweep_command"]

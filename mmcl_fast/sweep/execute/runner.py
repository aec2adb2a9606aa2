"""`run_sweep`: start or resume a sweep."""

from __future__ import annotations

import html
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.stream.memory import available_bytes
from mmcl_fast.engines import ENGINES, memory_bytes, resolve_engine
from mmcl_fast.errors import ConfigError, DataError, OutputError
from mmcl_fast.operating_system.processors import usable_cpus
from mmcl_fast.progress import Progress, optional_progress
from mmcl_fast.sweep.execute.attempt import AGAIN
from mmcl_fast.sweep.execute.drive import drive
from mmcl_fast.sweep.execute.policy import Policy
from mmcl_fast.sweep.execute.ray_pool import require_ray
from mmcl_fast.sweep.execute.reporting_pool import ReportingPool
from mmcl_fast.sweep.execute.schedule import chosen_shards
from mmcl_fast.sweep.execute.termination import orderly_termination
from mmcl_fast.sweep.execute.versions import check_cpu_target, check_version, versions_of
from mmcl_fast.sweep.execute.worker_pool import Done, Event, Job, Pool, Tally
from mmcl_fast.sweep.plan.numerics import numerics_of
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.plan.plan_diff import difference, extend_plan, same_runs
from mmcl_fast.sweep.plan.points import SIZES
from mmcl_fast.sweep.store.place import PLAN_FILE
from mmcl_fast.sweep.store.plan_file import read_plan, write_plan
from mmcl_fast.sweep.store.store import PartInfo, Store, not_a_part, part_info

GIB = 2**30
PROCESS_BYTES = 400 << 20  # a worker with torch loaded
DRIVER_BYTES = 600 << 20
PART_BYTES, PLAN_BYTES = 18_500, 17_500  # beside the rows: footer and metadata


@dataclass(frozen=True)
class SweepResult:
    """Result of a call of `run_sweep`.

    Attributes:
        store: Directory of the store.
        runs: Runs in this call's part of the plan.
        computed: Runs computed by this call.
        counts: Rows in the store by status, of this call's part of the plan.
        put_away: Quarantined shards, whose rows are absent.
        seconds: Wall time.
        busy: Training time in seconds, summed over workers.
        workers: Concurrent jobs.
    """

    store: Path
    runs: int
    computed: int
    counts: dict[str, int]
    put_away: list[int]
    seconds: float
    busy: float
    workers: int

    def _repr_html_(self) -> str:
        shown = {"runs": self.runs, "computed now": self.computed, **self.counts}
        rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in shown.items())
        return f"<table><caption>{html.escape(str(self.store))}</caption>{rows}</table>"


@dataclass(frozen=True)
class Start:
    """The first event: number of runs, and of those present in the store."""

    runs: int
    present: int


def run_sweep(
    plan: Plan,
    out: str | Path,
    *,
    policy: Policy | None = None,
    told: Callable[[Start | Event], None] | None = None,
    progress: bool = False,
) -> SweepResult:
    """Compute every run of a plan that is absent from the store.

    A shard may be computed more than once, but its rows are stored exactly once: they depend on the
    plan alone and are published atomically. After an interruption, the same call resumes. In the
    main thread SIGTERM and SIGHUP end it as an interrupt does, by SystemExit with status 128 + the
    signal, unless the caller handles or ignores them.

    Args:
        plan: The runs.
        out: Directory of the store, created if absent.
        policy: How to execute them.
        told: Callback for events, the first of which is `Start`.
        progress: Show the runs done: a bar on a terminal, a line in a notebook or a log.

    Raises: ConfigError: the store holds another plan, naming the difference, or the plan's device
        or engine is unavailable on this machine. DataError: not enough memory or disk, with the
        numbers. OutputError: a part is corrupt, of another plan, or cannot be written.
    """
    policy = policy or Policy()
    if not isinstance(plan, Plan):
        raise ConfigError(f"plan: expected a Plan of sweep.make_plan, got {plan!r}")
    check_cpu_target()
    if policy.executor == "ray":
        require_ray()
    if policy.extend and not (Path(out) / PLAN_FILE).exists():
        raise ConfigError(
            f"extend: expected a store with a plan to add runs to, got none at {str(out)!r}"
        )
    assigned = sum(plan.shard_size(k) for k in chosen_shards(plan, policy.part))
    with optional_progress(assigned, "runs", shown=progress) as display:
        return _run(plan, out, policy, _Counting(told, display))


def _run(plan: Plan, out: str | Path, policy: Policy, notify: _Counting) -> SweepResult:
    workers = _workers(plan, policy)
    store = Store(Path(out))
    store.prepare()
    parts = store.present()  # before the plan, which is written before its parts
    plan = _adopt(plan, store, policy, parts)
    _check_numerics(plan, policy)
    assigned = chosen_shards(plan, policy.part)
    present = [part_info(parts[k], plan) for k in sorted(assigned) if k in parts]
    if not policy.any_engine:
        versions = versions_of(plan)
        for info in present:
            check_version(info, versions, parts[info.shard].name)
    retried = {
        p.shard
        for p in present
        if p.provenance.get(AGAIN) or (policy.retry_failed and p.counts.get("failed"))
    }
    to_compute = [k for k in assigned if k not in parts or k in retried]
    started = time.monotonic()
    sizes = np.bincount(plan.shard_of)
    notify(
        Start(int(sizes[assigned].sum()), sum(p.runs for p in present if p.shard not in retried))
    )
    busy, quarantined = 0.0, []
    if to_compute:
        store.release(to_compute)
        jobs = [Job(str(store.path.resolve()), k, 1, policy.any_engine) for k in to_compute]
        with (
            orderly_termination(),
            ReportingPool(_pool(plan, policy, min(workers, len(jobs))), store.path) as pool,
        ):
            workers = pool.slots
            quarantined = drive(pool, store, jobs, max_deaths=policy.max_deaths, told=notify)
            busy = notify.seconds
    after = [p for p in present if p.shard not in retried]
    after += [part_info(store.part(k), plan) for k in to_compute if k not in quarantined]
    return SweepResult(
        store=store.path,
        runs=int(sizes[assigned].sum()),
        computed=int(sum(sizes[k] for k in to_compute if k not in quarantined)),
        counts=_counts(after),
        put_away=quarantined,
        seconds=time.monotonic() - started,
        busy=busy,
        workers=workers,
    )


class _Counting:
    """Forwards events, sums the training time, and shows the runs done where there is a display."""

    def __init__(
        self, told: Callable[[Start | Event], None] | None, display: Progress | None
    ) -> None:
        self._told, self._display, self._done, self.seconds = told, display, 0, 0.0
        self._tally = Tally()

    def __call__(self, event: Start | Event) -> None:
        if isinstance(event, Start):
            self._done = event.present
        elif isinstance(event, Done):
            self._done += sum(event.counts.values())
            self.seconds += event.seconds
        if self._told is not None:
            self._told(event)
        label = self._tally.label(event)
        if self._display is not None:
            self._display.advance(label, self._done)


def _adopt(plan: Plan, store: Store, policy: Policy, parts: Mapping[int, Path]) -> Plan:
    """The stored plan if it holds the same runs; else write or extend it, or raise."""
    if not (store.path / PLAN_FILE).exists():
        if parts:
            raise OutputError(f"store: expected {PLAN_FILE} beside the parts, got none")
        _check_disk(len(plan), plan, store)
        if write_plan(plan, store.path):
            return plan
    stored = read_plan(store.path)
    while True:
        longer = _extended(stored, plan, store, policy, parts)
        if longer is None:
            return stored
        _check_disk(len(longer) - len(stored), longer, store)
        if write_plan(longer, store.path, instead_of=stored.digest):
            return longer
        stored = read_plan(store.path)  # another process has extended it meanwhile


def _extended(
    stored: Plan, plan: Plan, store: Store, policy: Policy, parts: Mapping[int, Path]
) -> Plan | None:
    """The stored plan with the runs that are new in `plan`; None if it holds the same runs."""
    if parts and max(parts) >= stored.shards:
        raise not_a_part(parts[max(parts)], f"shard {max(parts)} of {stored.shards}")
    if same_runs(stored, plan, anywhere=policy.any_engine):
        return None
    if not policy.extend:
        hint = "use another --out, or --extend to add runs"
        if same_runs(stored, plan, anywhere=True):
            hint = "--allow-other-engine resumes here, and marks the rows"
        raise ConfigError(
            f"plan: expected the one of the store {str(store.path)!r}, got another: "
            f"{difference(stored, plan)}; {hint}"
        )
    return extend_plan(stored, plan)


def _check_numerics(plan: Plan, policy: Policy) -> None:
    """Raise ConfigError where rows of different arithmetic would mix, unless allowed."""
    if policy.any_engine:
        return
    first, _ = plan.points.classes(SIZES)
    for cfg in plan.points.take(first):
        resolve_engine(cfg)
    first, class_of = plan.points.classes(("engine", "device"))
    made_with = set(zip(class_of.tolist(), plan.numerics, strict=True))
    for k, how in sorted(made_with):
        cfg = plan.points[int(first[k])]
        if (here := numerics_of(cfg, measures=bool(plan.metrics))) != how:
            raise ConfigError(
                f"engine: expected what the plan was made with ({how}), got {here}; rows would "
                "agree to rounding only: --allow-other-engine accepts it, and marks them"
            )


def _workers(plan: Plan, policy: Policy) -> int:
    """Number of concurrent jobs. Raises DataError if they would not fit into memory together."""
    if policy.address is not None:
        return policy.workers or 1  # the memory of a cluster's machines is unknown here
    workers = policy.workers or (_gpus(plan) or usable_cpus())
    available = available_bytes()
    largest = _largest_batch(plan)
    needed = workers * (largest + PROCESS_BYTES)
    if available is not None and needed > available:
        fit = int(available // (largest + PROCESS_BYTES))
        hint = f"--workers {fit}" if fit else "a smaller n, d or m"
        raise DataError(
            f"memory: expected {workers} workers to fit into {available / GIB:.2f} GiB, got "
            f"{needed / GIB:.2f} GiB; take {hint}"
        )
    return workers


def job_bytes(plan: Plan, workers: int) -> int:
    """Estimated memory of a driver and its workers on a CPU, in bytes."""
    return DRIVER_BYTES + workers * (_largest_batch(plan) + PROCESS_BYTES)


def _largest_batch(plan: Plan) -> int:
    return int(max(plan.points.mapped(_batch_bytes, SIZES).values))


def _batch_bytes(cfg: TrainConfig) -> int:
    kind = ENGINES[cfg.engine]
    return memory_bytes(cfg, cfg.engine) * kind.max_runs(cfg)


def _gpus(plan: Plan) -> int:
    return torch.cuda.device_count() if "cuda" in plan.points.values("device") else 0


def _check_disk(runs: int, plan: Plan, store: Store) -> None:
    needed = disk_bytes(plan, runs)
    free = shutil.disk_usage(store.path).free
    if needed > free:
        raise DataError(
            f"disk: expected {runs} runs to fit into {_shown_bytes(free)}, got about "
            f"{_shown_bytes(needed)}; take fewer runs or epochs, or another --out"
        )


def disk_bytes(plan: Plan, runs: int | None = None) -> int:
    """Estimated bytes of a plan's last `runs` runs (default: all), of their parts and the plan.

    Curves hardly compress.
    """
    first = 0 if runs is None else len(plan) - runs
    chosen = plan.point_of[first:]
    parts = len(np.unique(plan.shard_of[first:]))
    of_metrics = 8 * len(plan.metrics)

    def of_run(cfg: TrainConfig) -> float:
        of_epoch = 3.2 * (4 if cfg.dtype == "float32" else 8) + of_metrics
        return (cfg.epochs + 1) * of_epoch + 200

    each = plan.points.mapped(of_run, ("epochs", "dtype"))
    counts = np.bincount(each.codes[chosen], minlength=len(each.values))
    return int(np.dot(each.values, counts)) + parts * PART_BYTES + PLAN_BYTES


def _shown_bytes(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / 2**20:.2f} MiB"


def _pool(plan: Plan, policy: Policy, workers: int) -> Pool:
    path = sys.path if plan.metrics else ()
    if policy.executor == "ray":
        from mmcl_fast.sweep.execute.ray_pool import RayPool

        return RayPool(policy.workers, policy.address, gpus=bool(_gpus(plan)), path=path)
    from mmcl_fast.sweep.execute.local_pool import WORKER_TIMEOUT_SECONDS, LocalPool

    return LocalPool(
        workers,
        _gpus(plan),
        path=path,
        timeout=policy.worker_timeout or WORKER_TIMEOUT_SECONDS,
    )


def _counts(infos: Sequence[PartInfo]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for info in infos:
        for status, count in info.counts.items():
            counts[status] = counts.get(status, 0) + count
    return counts


__all__ = [
    "Start",
    "SweepResult",
    "disk_bytes",
    "job_bytes",
    "run_sweep",
]

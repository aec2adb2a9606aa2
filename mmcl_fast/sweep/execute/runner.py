"""`run_sweep`: start a sweep, or go on with it: the same call."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.stream.memory import available_bytes
from mmcl_fast.engines import ENGINES, memory_bytes, resolve_engine
from mmcl_fast.errors import ConfigError, DataError, OutputError
from mmcl_fast.sweep.execute.worker_pool import Event, Job, Pool, drive
from mmcl_fast.sweep.plan.numerics import numerics_of
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.plan.plan_diff import difference, extend_plan, same_runs
from mmcl_fast.sweep.store.plan_file import PLAN_FILE, read_plan, write_plan
from mmcl_fast.sweep.store.store import PartInfo, Store, foreign, part_info

ExecutorName = Literal["local", "ray"]
GIB = 2**30
PROCESS_BYTES = 300 << 20  # a worker with torch loaded


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a sweep is run; what it computes is the plan's.

    Attributes:
        executor: Processes of this machine, or Ray.
        address: Ray cluster to join; default: one of its own on this machine.
        workers: Jobs at a time; default: one per core, or per GPU.
        part: (i, N): only the i-th of N parts of the shards, 1 <= i <= N; for arrays of jobs.
        extend: Take a plan that adds runs to the store's.
        any_engine: Go on where the plan's engine or processor is not to be had; rows are marked.
        retry_failed: Also compute shards again that have failed rows.
        max_deaths: Workers a shard may cost before it is put away, >= 1.
    """

    executor: ExecutorName = "local"
    address: str | None = None
    workers: int | None = None
    part: tuple[int, int] | None = None
    extend: bool = False
    any_engine: bool = False
    retry_failed: bool = False
    max_deaths: int = 5


@dataclass(frozen=True)
class SweepResult:
    """What a call of `run_sweep` did.

    Attributes:
        store: Directory of the store.
        runs: Runs of the plan, of this call's part of it.
        computed: Runs computed by this call.
        counts: Rows in the store by status, of this call's part of the plan.
        put_away: Shards whose workers kept dying: their rows are missing.
        seconds: Wall time.
        busy: Seconds of workers spent training.
        workers: Jobs at a time.
    """

    store: Path
    runs: int
    computed: int
    counts: dict[str, int]
    put_away: list[int]
    seconds: float
    busy: float
    workers: int


@dataclass(frozen=True)
class Start:
    """What `told` hears first: runs to do and runs that are there already."""

    runs: int
    present: int


def run_sweep(
    plan: Plan,
    out: str | Path,
    *,
    policy: Policy | None = None,
    told: Callable[[Start | Event], None] | None = None,
) -> SweepResult:
    """Compute every run of a plan that the store does not have yet.

    Execution is at least once, rows are exactly once: a shard's rows depend on the plan alone, and
    are published whole. Killed at any moment, the same call goes on.

    Args:
        plan: What to compute.
        out: Directory of the store, made if missing.
        policy: How.
        told: Called with a `Start`, then with what happens.

    Raises: ConfigError: the store holds another plan, naming the difference, or was computed on
        something that this machine does not have. DataError: not enough memory or disk, with the
        numbers. OutputError: a part is corrupt or foreign, or cannot be written.
    """
    policy = policy or Policy()
    tell = told or (lambda event: None)
    _check_policy(policy)
    chosen_shards(plan, policy.part)
    workers = _workers(plan, policy)
    store = Store(Path(out))
    store.prepare()
    there = store.present()  # before the plan, which is written before its parts
    plan = _adopt(plan, store, policy, there)
    _check_numerics(plan, policy)
    mine = chosen_shards(plan, policy.part)
    present = [part_info(there[k], plan) for k in mine if k in there]
    again = {p.shard for p in present if policy.retry_failed and p.counts.get("failed")}
    missing = [k for k in mine if k not in there or k in again]
    started = time.monotonic()
    sizes = np.bincount(plan.shard_of)
    tell(Start(int(sizes[mine].sum()), sum(p.runs for p in present if p.shard not in again)))
    busy, away = 0.0, []
    if missing:
        store.take_back(missing)
        jobs = [Job(str(store.path.resolve()), k, 1, policy.any_engine) for k in missing]
        with _pool(plan, policy, min(workers, len(jobs))) as pool:
            seen = _Counting(tell)
            workers = pool.slots
            away = drive(pool, store, jobs, max_deaths=policy.max_deaths, told=seen)
            busy = seen.seconds
    after = [p for p in present if p.shard not in again]
    after += [part_info(store.part(k), plan) for k in missing if k not in away]
    return SweepResult(
        store=store.path,
        runs=int(sizes[mine].sum()),
        computed=int(sum(sizes[k] for k in missing if k not in away)),
        counts=_counts(after),
        put_away=away,
        seconds=time.monotonic() - started,
        busy=busy,
        workers=workers,
    )


class _Counting:
    """Passes events on and adds up the time spent training."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell, self.seconds = tell, 0.0

    def __call__(self, event: Event) -> None:
        self.seconds += getattr(event, "seconds", 0.0)
        self._tell(event)


def _adopt(plan: Plan, store: Store, policy: Policy, there: Mapping[int, Path]) -> Plan:
    """The store's plan if it holds the same runs; else write this one, or refuse."""
    if not (store.path / PLAN_FILE).exists():
        if there:
            raise OutputError(f"store: expected {PLAN_FILE} beside the parts, got none")
        _check_disk(len(plan), plan, store)
        if write_plan(plan, store.path):
            return plan
    stored = read_plan(store.path)
    if there and max(there) >= stored.shards:
        raise foreign(there[max(there)], f"shard {max(there)} of {stored.shards}")
    if same_runs(stored, plan, anywhere=policy.any_engine):
        return stored
    if not policy.extend:
        hint = "take another --out, or --extend to add runs"
        if same_runs(stored, plan, anywhere=True):
            hint = "--allow-other-engine goes on here, and marks the rows"
        raise ConfigError(
            f"plan: expected the one of the store {str(store.path)!r}, got another: "
            f"{difference(stored, plan)}; {hint}"
        )
    longer = extend_plan(stored, plan)
    _check_disk(len(longer) - len(stored), longer, store)
    write_plan(longer, store.path, replace=True)
    return longer


def _check_numerics(plan: Plan, policy: Policy) -> None:
    """Refuse to mix rows of different arithmetic, unless that is asked for."""
    if policy.any_engine:
        return
    for cfg, how in zip(plan.points, plan.numerics, strict=True):
        resolve_engine(cfg)
        if (here := numerics_of(cfg)) != how:
            raise ConfigError(
                f"engine: expected what the plan was made with ({how}), got {here}; rows would "
                "agree to rounding only: --allow-other-engine takes it, and marks them"
            )


def _check_policy(policy: Policy) -> None:
    for name in ("workers", "max_deaths"):
        value = getattr(policy, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}: expected an integer >= 1, got {value}")
    if policy.address is not None and policy.executor != "ray":
        raise ConfigError(f"address: expected executor ray, got {policy.executor}")


def chosen_shards(plan: Plan, part: tuple[int, int] | None) -> list[int]:
    """The shards of part (i, N) of a sweep: each shard is in exactly one of the N.

    Raises: ConfigError: it is no part.
    """
    index, count = part or (1, 1)
    if not 1 <= index <= count:
        raise ConfigError(f"shard: expected i/N with 1 <= i <= N, got {index}/{count}")
    first, last = (plan.shards * k // count for k in (index - 1, index))
    return list(range(first, last))


def _workers(plan: Plan, policy: Policy) -> int:
    """Jobs at a time; refused where they would not fit into memory together."""
    if policy.address is not None:
        return policy.workers or 1  # what fits on the machines of a cluster is not known here
    workers = policy.workers or (_gpus(plan) or len(os.sched_getaffinity(0)))
    available = available_bytes()
    largest = max(_batch_bytes(cfg) for cfg in plan.points)
    needed = workers * (largest + PROCESS_BYTES)
    if available is not None and needed > available:
        fit = int(available // (largest + PROCESS_BYTES))
        hint = f"--workers {fit}" if fit else "a smaller n, d or m"
        raise DataError(
            f"memory: expected {workers} workers to fit into {available / GIB:.2f} GiB, got "
            f"{needed / GIB:.2f} GiB; take {hint}"
        )
    return workers


def _batch_bytes(cfg: TrainConfig) -> int:
    kind = ENGINES[cfg.engine]
    return memory_bytes(cfg, cfg.engine) * kind.max_runs(cfg)


def _gpus(plan: Plan) -> int:
    return torch.cuda.device_count() if any(c.device == "cuda" for c in plan.points) else 0


def _check_disk(runs: int, plan: Plan, store: Store) -> None:
    needed = disk_bytes(plan, runs)
    free = shutil.disk_usage(store.path).free
    if needed > free:
        raise DataError(
            f"disk: expected {runs} runs to fit into {free / GIB:.2f} GiB, got about "
            f"{needed / GIB:.2f} GiB; take fewer runs or epochs, or another --out"
        )


def disk_bytes(plan: Plan, runs: int | None = None) -> int:
    """About how much disk the curves of a plan's last runs take; noise does not compress."""
    chosen = plan.point_of if runs is None else plan.point_of[len(plan) - runs :]
    each = np.array(
        [3.2 * (c.epochs + 1) * (4 if c.dtype == "float32" else 8) + 200 for c in plan.points]
    )
    return int(each[chosen].sum())


def _pool(plan: Plan, policy: Policy, workers: int) -> Pool:
    if policy.executor == "ray":
        from mmcl_fast.sweep.execute.ray_pool import RayPool

        return RayPool(policy.workers, policy.address, gpus=bool(_gpus(plan)))
    from mmcl_fast.sweep.execute.local_pool import LocalPool

    return LocalPool(workers, _gpus(plan))


def _counts(infos: Sequence[PartInfo]) -> dict[str, int]:
    found: dict[str, int] = {}
    for info in infos:
        for status, count in info.counts.items():
            found[status] = found.get(status, 0) + count
    return found


__all__ = [
    "ExecutorName",
    "Policy",
    "Start",
    "SweepResult",
    "chosen_shards",
    "disk_bytes",
    "run_sweep",
]

"""Computing one shard: training its runs and collecting their rows."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import undrawable
from mmcl_fast.engines import memory_bytes
from mmcl_fast.errors import ConfigError, EngineRefusedError
from mmcl_fast.sweep.execute.attempt import Attempt
from mmcl_fast.sweep.plan.metric_paths import import_metrics
from mmcl_fast.sweep.plan.numerics import numerics_of
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.plan.points import SIZES
from mmcl_fast.sweep.store.schema import CURVES, Rows, list_column, part_schema, setting_columns
from mmcl_fast.training import train_many
from mmcl_fast.training.observers import Metric
from mmcl_fast.training.resolve import resolve_settings
from mmcl_fast.training.run import Run

CHUNK_BYTES = 1 << 29  # of runs with their coefficients, until they are converted to rows
CHUNK_RUNS = 256


@dataclass(frozen=True)
class _Result:
    """The part of a run that its row needs; coefficients may take a thousand times the memory."""

    status: str
    diverged_at: int | None
    curves: dict[str, npt.NDArray[np.floating]]


def compute(
    plan: Plan, shard: int, *, any_engine: bool = False, attempt: Attempt | None = None
) -> Rows:
    """Train the runs of a shard.

    Args:
        plan: The plan.
        shard: Index of the shard.
        any_engine: Where the plan's device or engine is unavailable, use the choice of `auto`; the
            rows record it.
        attempt: Which runs to train in smaller batches, or not at all; default: the first attempt.
    """
    attempt = attempt or Attempt()
    runs = plan.runs_of(shard)
    configs = plan.configs(runs)
    metrics = import_metrics(plan.metrics)
    if any_engine:
        configs = [_runnable(cfg) for cfg in configs]
    started = time.perf_counter()
    results = _results(configs, metrics, attempt)
    attempt.end()
    seconds = time.perf_counter() - started
    failed = {int(k): text for k, text in zip(runs, results, strict=True) if isinstance(text, str)}
    columns = setting_columns(plan, runs)
    for name in ("engine", "device"):
        columns[name] = pa.array([getattr(cfg, name) for cfg in configs])
    schema = part_schema(plan.dtype, plan.metric_names)
    columns |= _result_columns(results, schema, (*CURVES, *metrics))
    columns["error"] = pa.array(
        [text.strip().splitlines()[-1] if isinstance(text, str) else None for text in results],
        pa.string(),
    )
    columns["computed_on"] = pa.array([numerics_of(cfg, measures=bool(metrics)) for cfg in configs])
    return Rows(pa.table(columns, schema), failed, seconds)


def _runnable(cfg: TrainConfig) -> TrainConfig:
    """The config, with device and engine `auto` if its own cannot run on this machine."""
    try:
        return resolve_settings(cfg)
    except (ConfigError, EngineRefusedError):
        return resolve_settings(cfg.replace(device="auto", engine="auto"))


def _results(
    configs: Sequence[TrainConfig], metrics: Mapping[str, Metric], attempt: Attempt
) -> list[_Result | str]:
    """Results of the runs of a shard; of one that raises, the traceback.

    A run whose labels cannot be trained on is trained alone, to get its error: in a batch it would
    end the others. Positions of the attempt are those in this order of training, which depends on
    the shard alone.
    """
    alone = set(undrawable(configs))
    together = [k for k in range(len(configs)) if k not in alone]
    results: dict[int, _Result | str] = {}
    for places in [*([k] for k in sorted(alone)), *_chunks(configs, together)]:
        batch = [configs[k] for k in places]
        found = attempt.results(batch, len(results), lambda part: _train_all(part, metrics))
        results.update(zip(places, found, strict=True))
    return [results[k] for k in range(len(configs))]


def _train_all(
    configs: Sequence[TrainConfig], metrics: Mapping[str, Metric]
) -> list[_Result | str]:
    """Results of runs. A batch that raises is halved until the run that raises is alone."""
    try:
        return [_result(run) for run in train_many(configs, metrics=metrics)]
    except Exception:  # noqa: BLE001 - any error of a run becomes its row
        if len(configs) == 1:
            return [traceback.format_exc()]
        half = len(configs) // 2
        return [*_train_all(configs[:half], metrics), *_train_all(configs[half:], metrics)]


def _result(run: Run) -> _Result:
    curves = {name: curve.numpy() for name, curve in run.curves().items()}
    return _Result(run.status, run.diverged_at, curves)


def _chunks(configs: Sequence[TrainConfig], places: Sequence[int]) -> Iterator[Sequence[int]]:
    """Places of runs that are trained and held together, those of one shape after another."""
    sizes = attrgetter(*SIZES)
    kinds: dict[tuple[object, ...], list[int]] = {}
    for k in places:
        kinds.setdefault(sizes(configs[k]), []).append(k)
    costs = [memory_bytes(configs[k[0]], configs[k[0]].engine) for k in kinds.values()]
    width = max(1, min(CHUNK_RUNS, CHUNK_BYTES // max(costs, default=1)))
    ordered = [k for kind in kinds.values() for k in kind]
    for first in range(0, len(ordered), width):
        yield ordered[first : first + width]


def _result_columns(
    results: Sequence[_Result | str], schema: pa.Schema, names: Sequence[str]
) -> dict[str, pa.Array]:
    """Columns of status, final values and curves."""
    given = [r if isinstance(r, _Result) else None for r in results]
    columns: dict[str, pa.Array] = {
        "status": pa.array(["failed" if r is None else r.status for r in given]),
        "diverged_at": pa.array([None if r is None else r.diverged_at for r in given], pa.int32()),
    }
    for name in names:
        curves = [None if r is None else r.curves[name] for r in given]
        columns[name] = list_column(curves, schema.field(name).type)
        columns[f"final_{name}"] = pa.array(
            [np.nan if c is None else float(c[-1]) for c in curves], pa.float64()
        )
    return columns


__all__ = ["compute"]

"""One shard: train its runs and turn them into rows."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines import memory_bytes
from mmcl_fast.errors import ConfigError, EngineRefusedError
from mmcl_fast.sweep.plan.numerics import numerics_of
from mmcl_fast.sweep.plan.plan import Plan
from mmcl_fast.sweep.store.schema import CURVES, Rows, list_column, part_schema, setting_columns
from mmcl_fast.training import train_many
from mmcl_fast.training.resolve import resolve_settings
from mmcl_fast.training.run import Run

CHUNK_BYTES = 1 << 29  # runs with their coefficients, held until they are rows
CHUNK_RUNS = 256


@dataclass(frozen=True)
class _Result:
    """What a row keeps of a run, whose coefficients may take a thousand times the memory."""

    status: str
    diverged_at: int | None
    curves: dict[str, npt.NDArray[np.floating]]


def compute(plan: Plan, shard: int, *, any_engine: bool = False) -> Rows:
    """Train the runs of a shard.

    Args:
        plan: The plan.
        shard: Which shard.
        any_engine: Where this machine cannot train as the plan says (another device), take what
            `auto` takes here; rows tell.
    """
    runs = plan.runs_of(shard)
    configs = plan.configs(runs)
    if any_engine:
        configs = [_possible(cfg) for cfg in configs]
    started = time.perf_counter()
    done: list[_Result | str] = []
    for chunk in _chunks(configs):
        done += _train_all(chunk)
    seconds = time.perf_counter() - started
    failed = {int(k): text for k, text in zip(runs, done, strict=True) if isinstance(text, str)}
    columns = setting_columns(plan, runs)
    for name in ("engine", "device"):
        columns[name] = pa.array([getattr(cfg, name) for cfg in configs])
    schema = part_schema(plan.dtype)
    columns |= _results(done, schema)
    columns["error"] = pa.array(
        [text.strip().splitlines()[-1] if isinstance(text, str) else None for text in done],
        pa.string(),
    )
    columns["computed_on"] = pa.array([numerics_of(cfg) for cfg in configs])
    return Rows(pa.table(columns, schema), failed, seconds)


def _possible(cfg: TrainConfig) -> TrainConfig:
    """The config as it is, or as this machine can train it; memory is training's to refuse."""
    try:
        return resolve_settings(cfg)
    except (ConfigError, EngineRefusedError):
        return resolve_settings(cfg.replace(device="auto", engine="auto"))


def _train_all(configs: Sequence[TrainConfig]) -> list[_Result | str]:
    """Runs, or the traceback of those that raise: each is then trained by itself."""
    try:
        return [_result(run) for run in train_many(configs)]
    except Exception:  # noqa: BLE001 - whatever a run raises becomes its row; the others go on
        if len(configs) == 1:
            return [traceback.format_exc()]
        return [found for cfg in configs for found in _train_all([cfg])]


def _result(run: Run) -> _Result:
    curves = {name: curve.numpy() for name, curve in run.curves().items()}
    return _Result(run.status, run.diverged_at, curves)


def _chunks(configs: Sequence[TrainConfig]) -> Iterator[Sequence[TrainConfig]]:
    cost = max(memory_bytes(cfg, cfg.engine) for cfg in dict.fromkeys(configs))
    width = max(1, min(CHUNK_RUNS, CHUNK_BYTES // cost))
    for first in range(0, len(configs), width):
        yield configs[first : first + width]


def _results(done: Sequence[_Result | str], schema: pa.Schema) -> dict[str, pa.Array]:
    """Status and curves of each run."""
    given = [r if isinstance(r, _Result) else None for r in done]
    columns: dict[str, pa.Array] = {
        "status": pa.array(["failed" if r is None else r.status for r in given]),
        "diverged_at": pa.array([None if r is None else r.diverged_at for r in given], pa.int32()),
    }
    for name in CURVES:
        curves = [None if r is None else r.curves[name] for r in given]
        columns[name] = list_column(curves, schema.field(name).type)
        columns[f"final_{name}"] = pa.array(
            [np.nan if c is None else float(c[-1]) for c in curves], pa.float64()
        )
    return columns


__all__ = ["compute"]

"""Time of a run, measured and as `mmcl_fast.engines.core_seconds` predicts it, of many sizes.

`python -m bench.cpu.run_cost [--json FILE] [--quick]`; where installed, `python -m
mmcl_fast.bench.cpu.run_cost`. Slurm's time limits and the order of shards come from the prediction.

Processor time of one thread and one run, in the batches of a sweep, data and evaluations included.
`python -m bench.cpu.run_cost_fit` fits the constants of the prediction to the rows marked `fit`;
the others are for its test.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mmcl_fast import TrainConfig, train_many
from mmcl_fast.engines import ENGINES, core_seconds

# Relative, so that it runs from a checkout and as mmcl_fast.bench alike.
from .. import record
from ..arguments import make_parser

OP = "run_cost"
TARGET_SECONDS = 0.6  # of a measurement; a run that takes longer is measured alone
REPEATS = 3


@dataclass(frozen=True)
class Case:
    """Sizes of a run.

    Attributes:
        engine: Which engine.
        n: Samples.
        m: Neurons.
        every: Epochs between evaluations; 0: none.
        epochs: Epochs.
        d: Dimensions.
        modality: Single- or multi-modal.
        data: Explicit or reduced.
    """

    engine: str
    n: int
    m: int
    every: int
    epochs: int = 200
    d: int = 2000
    modality: str = "single"
    data: str = "reduced"

    @property
    def config(self) -> TrainConfig:
        """The run."""
        given = {**asdict(self), "evaluate_every": self.every, "device": "cpu"}
        del given["every"]
        return TrainConfig(**given)


# m = 16 .. 4096, n = 20 .. 1000, both engines of sweeps, evaluated each epoch, each 20th, never.
CHECKED = (
    Case("native", 20, 16, 1),
    Case("native", 100, 16, 20),
    Case("native", 100, 50, 1),
    Case("native", 20, 4096, 20),
    Case("native", 200, 256, 0),
    Case("native", 400, 512, 1, epochs=20),
    Case("native", 1000, 16, 20, epochs=40),
    Case("native", 1000, 4096, 0, epochs=5),
    Case("gram", 20, 16, 0),
    Case("gram", 100, 64, 1),
    Case("gram", 300, 512, 20, epochs=40),
    Case("gram", 1000, 4096, 20, epochs=5),
)
FITTED = (
    *(Case("native", n, m, 0) for n, m in ((20, 16), (30, 64), (100, 16), (100, 50), (50, 1024))),
    *(Case("native", n, m, 0) for n, m in ((100, 256), (20, 4096), (400, 16))),
    *(Case("native", n, m, 0, 40) for n, m in ((100, 4096), (400, 256), (1000, 64))),
    *(Case("native", n, m, 0, 10) for n, m in ((400, 4096), (1000, 1024), (1500, 16))),
    *(Case("native", n, m, 1, 20) for n, m in ((20, 4), (20, 64), (100, 16), (100, 256))),
    *(Case("native", n, m, 1, 10) for n, m in ((20, 1024), (100, 4096), (400, 64), (1000, 50))),
    *(Case("native", n, m, 1, 4) for n, m in ((400, 1024), (1000, 512))),
    Case("native", 1000, 4096, 2, 2),
    Case("native", 10, 4, 0, 5),
    Case("native", 100, 50, 20, modality="multi"),
    Case("native", 400, 256, 20, 40, modality="multi"),
    Case("native", 50, 2048, 20, 100, modality="multi"),
    Case("native", 100, 50, 20, 20, data="explicit"),
    Case("native", 100, 50, 0, 20, d=20000, data="explicit"),
    Case("native", 400, 64, 0, 5, d=5000, data="explicit"),
    *(Case("gram", n, m, 0) for n, m in ((20, 32), (20, 512), (100, 16), (100, 64), (50, 256))),
    *(Case("gram", n, m, 0, 40) for n, m in ((20, 4096), (100, 1024), (400, 64), (400, 256))),
    *(Case("gram", n, m, 0, 10) for n, m in ((100, 4096), (400, 2048), (1000, 64), (1000, 512))),
    Case("gram", 1000, 4096, 0, 3),
    *(Case("gram", n, m, 1, 20) for n, m in ((20, 4), (20, 64), (100, 16), (100, 256))),
    *(Case("gram", n, m, 1, 4) for n, m in ((100, 4096), (400, 64), (400, 1024), (1000, 256))),
    Case("gram", 100, 50, 20, modality="multi"),
    Case("gram", 400, 256, 20, 40, modality="multi"),
    Case("gram", 100, 50, 20, 20, data="explicit"),
    Case("gram", 400, 64, 0, 5, d=5000, data="explicit"),
)


def measure(case: Case) -> dict[str, Any]:
    """A row: seconds of a run, the median of batches, and what is predicted."""
    cfg = case.config
    predicted = core_seconds(cfg, cfg.engine)
    count = max(1, min(ENGINES[cfg.engine].max_runs(cfg), round(TARGET_SECONDS / predicted)))
    spent = []
    for repeat in range(REPEATS if count > 1 or predicted < 1 else 1):
        runs = [cfg.replace(seed=count * repeat + k) for k in range(count)]
        started = time.process_time()
        train_many(runs)
        spent.append((time.process_time() - started) / count)
    seconds = sorted(spent)[len(spent) // 2]
    return {
        "op": OP,
        "variant": case.engine,
        "settings": asdict(case),
        "fit": case in FITTED,
        "runs": count,
        "seconds": float(f"{seconds:.4g}"),
        "predicted": float(f"{predicted:.4g}"),
        "predicted over measured": float(f"{predicted / seconds:.3g}"),
    }


def rows(cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    """A row of each case, after one run that loads what is loaded on first use."""
    torch.set_num_threads(1)
    train_many([Case("native", 20, 4, 1, 2).config])
    for case in cases:
        yield measure(case)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    args = make_parser("cpu.run_cost", __doc__).parse_args(arguments)
    cases = CHECKED[:1] if args.quick else CHECKED if args.short else (*CHECKED, *FITTED)
    before, found = record.environment(), []
    for row in rows(cases):
        shown = {**row.pop("settings"), **row}
        print(" ".join(f"{k}={v}" for k, v in shown.items() if k != "op"), flush=True)
        settings = {name: shown[name] for name in Case.__dataclass_fields__}
        found.append({**row, "settings": settings, **before})
    if args.json:
        record.append(args.json, found)
    return 0


__all__ = ["CHECKED", "FITTED", "OP", "Case", "main", "measure", "rows"]

if __name__ == "__main__":
    sys.exit(main())

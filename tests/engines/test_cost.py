"""The estimated time of a run, against times that were measured on a core with AVX-512."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.bench.cpu.run_cost import CHECKED, OP, Case
from mmcl_fast.engines import core_seconds
from mmcl_fast.engines.cost import flop

REDUCED: dict[str, Any] = {"data": "reduced", "engine": "native"}
MEASURED = [  # milliseconds of a run in a batch
    (0.27, REDUCED | {"n": 30, "m": 4, "epochs": 5, "evaluate_every": 5}),
    (3.3, REDUCED | {"m": 16, "evaluate_every": 20}),
    (7.5, REDUCED | {"evaluate_every": 20}),
    (41.5, REDUCED | {"evaluate_every": 1}),
    (70.2, REDUCED | {"m": 512, "evaluate_every": 20}),
    (228, REDUCED | {"m": 4096, "epochs": 50, "evaluate_every": 0}),
    (380, REDUCED | {"m": 4096, "epochs": 50, "evaluate_every": 10}),
    (429, REDUCED | {"m": 4096, "epochs": 50, "evaluate_every": 10, "modality": "multi"}),
    (45, {"engine": "native", "d": 20000, "evaluate_every": 20}),
    (1046, REDUCED | {"n": 2000, "epochs": 20, "evaluate_every": 20}),
    (64.1, REDUCED | {"engine": "gram", "m": 512, "epochs": 50, "evaluate_every": 20}),
    (103, {"engine": "primal", "epochs": 50, "evaluate_every": 20}),
    (231, {"engine": "primal", "m": 512, "epochs": 20, "evaluate_every": 5}),
    (132, {"engine": "reference", "epochs": 20, "evaluate_every": 5}),
]


@pytest.mark.parametrize(("milliseconds", "settings"), MEASURED)
def test_estimates_are_near_the_measured_times(
    milliseconds: float, settings: dict[str, Any]
) -> None:
    """An estimate that leaves out the loss, the weights' width or the heads is off by 2 to 5."""
    cfg = TrainConfig(**settings)
    assert 0.6 < milliseconds * 1e-3 / core_seconds(cfg, cfg.engine) < 1.6


def test_estimates_of_the_committed_sizes() -> None:
    """Slurm's limit is twice the estimate: 1.4 is left for slower processors."""
    results = Path(__file__).parents[2] / "bench" / "results" / "cpu.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    measured = {
        Case(**row["settings"]): row["seconds"]
        for row in rows
        if row["op"] == OP and not row["fit"]
    }
    ratios = {case: core_seconds(case.config, case.engine) / measured[case] for case in CHECKED}
    assert 0.7 < min(ratios.values()) <= max(ratios.values()) < 1.5, ratios


def test_an_evaluation_after_the_last_epoch_counts() -> None:
    cfg = TrainConfig(engine="native", m=1024, epochs=19, evaluate_every=20)
    for cost in (core_seconds, flop):
        of_epochs = [cost(cfg.replace(epochs=k), cfg.engine) for k in (19, 20, 21)]
        assert of_epochs[1] - of_epochs[0] < of_epochs[2] - of_epochs[1], "epochs 0, 20, then 21"


def test_every_class_has_a_head() -> None:
    def of_evaluations(classes: int) -> float:
        cfg = TrainConfig(engine="native", classes=classes)
        every, never = (core_seconds(cfg.replace(evaluate_every=k), "native") for k in (1, 0))
        return every - never

    assert of_evaluations(12) > 3 * of_evaluations(2), "embeddings alone do not grow"


def test_every_amount_of_work_counts() -> None:
    base = TrainConfig(engine="native", evaluate_every=20)
    larger = {"n": 200, "m": 100, "d": 4000, "epochs": 400, "n_test": 4000, "evaluate_every": 10}
    for name, value in larger.items():
        for engine in ("native", "gram", "primal", "reference"):
            more = core_seconds(base.replace(**{name: value}), engine)
            assert more > core_seconds(base, engine), (name, engine)

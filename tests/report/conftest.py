"""A small store, with a run that diverges in no setting, and one whose larger step diverges."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcl_fast import TrainConfig, sweep

BASE = TrainConfig(n=10, d=30, m=2, n_test=20, epochs=12, evaluate_every=4, data="reduced")
SEEDS = 3


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two modalities, three SNRs, two widths."""
    out = tmp_path_factory.mktemp("report") / "widths"
    grid = {"modality": ["both"], "m": [2, 3], "snr": [0.01, 0.1, 1.0]}
    plan = sweep.make_plan(BASE, grid=grid, seeds=SEEDS)
    sweep.run_sweep(plan, out, policy=sweep.Policy(workers=1))
    return out


@pytest.fixture(scope="session")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps, the larger of which overflows at once."""
    out = tmp_path_factory.mktemp("report") / "steps"
    plan = sweep.make_plan(BASE.replace(q=4, sigma_0=1.0), grid={"eta": [1e-6, 1e10]}, seeds=SEEDS)
    sweep.run_sweep(plan, out, policy=sweep.Policy(workers=1))
    return out

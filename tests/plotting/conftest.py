"""A sweep of three settings and both modalities."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcl_fast import TrainConfig, sweep


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plotting") / "store"
    base = TrainConfig(n=10, d=30, n_test=20, epochs=4, data="reduced")
    grid = {"modality": ["both"], "m": [2, 3, 5], "snr": [0.01, 0.1, 1.0], "eta": [0.01, 0.1]}
    plan = sweep.make_plan(base, grid=grid, seeds=3)
    sweep.run_sweep(plan, out, policy=sweep.Policy(workers=1))
    return out

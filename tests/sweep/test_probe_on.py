"""The linear probe as an axis of a sweep, and as columns of its store."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mmcl_fast import ConfigError, TrainConfig, train
from mmcl_fast.sweep import load, make_plan


def test_a_sweep_over_probes(tmp_path: Path, compute: Callable) -> None:
    base = TrainConfig(n=20, d=60, m=8, n_test=40, epochs=25, evaluate_every=25, engine="native")
    zipped = {"probe_on": ["train", "ood", "ood"], "probe_samples": [None, 15, 30]}
    plan = make_plan(base, zipped=zipped, seeds=2)
    compute(plan, tmp_path / "store")
    names = ["probe_on", "probe_samples", "seed", "final_ood_accuracy", "loss"]
    rows = load(tmp_path / "store", names).to_pylist()
    assert [(row["probe_on"], row["probe_samples"]) for row in rows[::2]] == [
        ("train", None), ("ood", 15), ("ood", 30),
    ]  # fmt: skip
    for row in rows:
        settings = {name: row[name] for name in ("probe_on", "probe_samples", "seed")}
        run = train(base.replace(**settings))
        assert row["final_ood_accuracy"] == run.ood_accuracy[-1].item()
    with pytest.raises(ConfigError, match="probe_samples: expected None with probe_on train"):
        make_plan(base, grid={"probe_on": ["train", "ood"], "probe_samples": [15]})

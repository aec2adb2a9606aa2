"""A run that crashes its process: its row says so, and every other row is there."""

from pathlib import Path

import pytest

from mmcl_fast import TrainConfig, sweep

pytestmark = pytest.mark.slow  # five workers start


def test_a_run_with_a_segmentation_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crashing.py").write_text(
        "import ctypes\n"
        "def metric(info):\n"
        "    if info.config.seed == 7:\n"
        "        ctypes.string_at(0)\n"
        "    return float(info.config.seed)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plan = sweep.make_plan(
        TrainConfig(n=12, m=4, epochs=2, data="reduced", evaluate_every=0),
        seeds=10,
        metrics={"seed_again": "crashing:metric"},
    )
    result = sweep.run_sweep(plan, tmp_path / "s", policy=sweep.Policy(workers=1))
    assert result.counts == {"finished": 9, "failed": 1}
    assert result.put_away == []
    columns = ["run_id", "status", "error", "final_seed_again"]
    rows = sweep.load(tmp_path / "s", columns).to_pylist()
    assert [row["run_id"] for row in rows if row["status"] == "failed"] == [7]
    assert rows[7]["error"] == "WorkerDied: 2 workers died with this run alone: SIGSEGV"
    assert [row["final_seed_again"] for row in rows if row["run_id"] != 7] == [
        float(k) for k in range(10) if k != 7
    ]
    again = sweep.run_sweep(plan, tmp_path / "s", policy=sweep.Policy(workers=1))
    assert again.computed == 0, "it is the run, and not tried again unless that is asked for"

"""Constants of the predicted time of a run, from times that are made up."""

import json
from pathlib import Path

import pytest
import torch

from mmcl_fast.bench.cpu.run_cost import FITTED, OP
from mmcl_fast.bench.cpu.run_cost_fit import fitted, measured
from mmcl_fast.engines.cost import SECONDS, work


def test_constants_are_found_again(tmp_path: Path) -> None:
    """Rows of the fit's settings, timed by constants twice those in the code."""
    before = torch.tensor(SECONDS["native"], dtype=torch.float64)
    file = tmp_path / "results.jsonl"
    rows = []
    for case in FITTED:
        amounts = torch.tensor(work(case.config, case.engine), dtype=torch.float64)
        constants = 2 * torch.tensor(SECONDS[case.engine], dtype=torch.float64)
        row = {"op": OP, "variant": case.engine, "settings": vars(case), "fit": True}
        rows.append(row | {"seconds": float(amounts @ constants)})
    rows.append(rows[0] | {"fit": False, "seconds": 1e9})  # for the test, not for the fit
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    amounts, seconds = measured(file, "native", fit=True)
    assert len(seconds) == sum(case.engine == "native" for case in FITTED)
    found = fitted(amounts, seconds, before)
    assert ((found == 0) == (before == 0)).all()
    # The prior holds constants back where few rows tell of them.
    assert (amounts @ found / seconds).tolist() == pytest.approx([1.0] * len(seconds), rel=0.06)
    assert (amounts @ before / seconds).tolist() == pytest.approx([0.5] * len(seconds))

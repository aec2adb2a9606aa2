"""Benches of findings and of choices: rows that pages are made from."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pytest

from mmcl_fast.bench.cpu import choices
from mmcl_fast.bench.report import findings
from mmcl_fast.bench.science import phase, readings, table1_grid
from mmcl_fast.config import TrainConfig
from mmcl_fast.experiments.phase.diagram import Map, Phase
from mmcl_fast.experiments.phase.planes import PLANES
from mmcl_fast.training import train_many

RUN = {"cpu": "a CPU", "load_1min": 0.5, "commit": "c" * 40, "dirty": False, "command": "x"}
RUN |= {"date": "2026-01-01", "cores": 2}
TINY = TrainConfig(n=20, d=60, m=6, epochs=4, n_test=40)


def test_readings_change_one_thing_each() -> None:
    rows = {row["variant"]: row for row in readings.readings(TINY, range(3))}
    assert list(rows) == list(readings.READINGS)
    for name, changes in readings.READINGS.items():
        cfg = TINY.replace(modality="multi", **changes)
        runs = train_many([cfg.replace(seed=s) for s in range(3)])
        for curve in ("noise", "ood_accuracy"):
            values = np.array([float(getattr(run, curve)[-1]) for run in runs])
            found = rows[name]["multi"][curve]
            assert found["mean"] == pytest.approx(values.mean(), abs=1e-6)
            assert found["sd"] == pytest.approx(values.std(ddof=1), abs=1e-6)
    losses = {rows[name]["single"]["loss"]["mean"] for name in readings.READINGS}
    assert len(losses) > 3


def made_up(mean: np.ndarray) -> Phase:
    xs, ys = [16.0, 64.0], [0.1, 0.2, 0.8]
    lines = np.array([0.2, 0.1]), np.array([0.25, math.nan])
    shown = Map(mean, mean * 0, *lines)
    plane = PLANES["n-snr"]
    return Phase("n-snr", plane, xs, ys, range(2), 3, {"single": shown}, 1)


def test_rows_of_a_plane() -> None:
    (row,) = phase.rows_of(made_up(np.ones((3, 2))))
    assert row["x"] == [16.0, 64.0]
    assert row["measured"] == [0.2, 0.1]
    assert row["predicted"] == [0.25, None]
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_cells_far_above_the_border_and_not_near_one_are_trained_again(monkeypatch) -> None:
    monkeypatch.setattr(phase, "LONGER", 2)
    mean = np.array([[0.5, 0.5], [0.75, 0.9], [1.0, math.nan]])
    assert phase.unsettled(made_up(mean), made_up(mean).maps["single"]) == [(64.0, 0.8)]
    (row,) = phase.smaller_steps(made_up(mean))
    cfg = PLANES["n-snr"].cell(64.0, 0.8)
    step = cfg.eta * cfg.mu_norm**2 / (cfg.m * cfg.tau_value)
    assert row["cells"] == 1
    assert row["step"] == [pytest.approx(step, rel=0.01)] * 2
    assert 0 <= row["least_accuracy"] <= 1
    assert phase.smaller_steps(made_up(np.ones((3, 2)))) == []


def test_a_plane_is_shown_in_its_own_unit(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(findings, "RESULTS", tmp_path)
    monkeypatch.setattr(findings, "SPANS", (("n-snr", "n", 0.0), ("cmu-nsnr2", "C_mu", 1.0)))
    first = {"op": "phase", "variant": "multi", "left_out": 3, **RUN}
    rows = [
        first
        | {"settings": {"plane": "n-snr"}, "x": [10.0, 20.0]}
        | {"measured": [0.2, None], "predicted": [0.4, 0.4]},
        first
        | {"settings": {"plane": "cmu-nsnr2"}, "x": [0.5, 1.0, 2.0]}
        | {"measured": [9.0, 2.0, 1.5], "predicted": [9.0, 4.0, 2.0]},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "findings.jsonl").write_text(lines)
    text = findings.phase_table()
    assert "| n = 10 to 10 | multi | 0.40 to 0.40 | – | 0.25 (0.25 to 0.25) | 3 |" in text
    assert (
        r"| $C_\mu$ = 1 to 2 | multi | 1.50 to 2.00 | 2.00 to 3.00 | 0.62 (0.50 to 0.75) | 3 |"
        in text
    )


def test_the_grid_is_rendered_from_its_rows() -> None:
    jobs = [job for group in table1_grid.GROUPS.values() for job in group]
    keys = (table1_grid.ZERO_SHOT, *table1_grid.PENALTIES)
    results = {
        job: {key: {"train": 10.0 * k + i / 10, "rev": 1.0} for k, key in enumerate(keys)}
        for i, job in enumerate(dict.fromkeys(jobs))
    }
    rows = [
        {"variant": name, "settings": {"changes": dict(changes)}, "accuracy": found}
        for (name, changes), found in results.items()
    ]
    again = table1_grid.results_of(json.loads(json.dumps(rows)))
    assert again == results
    lines = table1_grid.render("losses", again).splitlines()
    assert lines[0] == "| multi-modal | zero-shot | no L2 | L2 0.001 | L2 0.01 | L2 0.1 |"
    first = results["multi", ()]["L2 0.01"]["train"]
    assert f"| {first:.1f} / 1.0 |" in lines[2]


def test_choices_are_compared_with_what_the_code_does() -> None:
    calls = {"ours": lambda: sum(range(10_000)), "other": lambda: sum(range(100_000))}
    ours, other = choices.compare(choices.Choice("a sum", "where.py", lambda: calls), 5)
    assert ours["times_ours"] == 1.0
    assert other["times_ours"] > 2
    assert other["settings"]["choice"] == "a sum"


def test_a_constant_is_put_back() -> None:
    newton = choices.linear_probe_newton
    before = newton.CHUNK_BYTES
    seen = choices.by_constant(
        newton,
        "CHUNK_BYTES",
        {"one": 1},
        partial(getattr, newton, "CHUNK_BYTES"),
    )
    assert seen["one"]() == 1
    assert before == newton.CHUNK_BYTES

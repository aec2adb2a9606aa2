"""The plan of `python -m bench.gpu`, what it records, and what it says without a GPU."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl_fast.bench import gpu, gpu_steps, gpu_trajectory, record
from mmcl_fast.bench.gpu import LIMIT_S, STEPS, Step, complete, plan, run_all, run_step
from mmcl_fast.bench.peers import eager_losses


def test_budgets_fit_the_limit_and_needs_come_first() -> None:
    seen: set[str] = set()
    for step in STEPS:
        assert set(step.needs) <= seen, step.name
        seen.add(step.name)
    assert sum(step.seconds for step in STEPS) <= LIMIT_S == 8 * 60


def test_plan() -> None:
    names = [step.name for step in plan(STEPS, [], tune=False)]
    assert "tune" not in names
    assert len(names) == len(STEPS) - 1
    assert plan(STEPS, [], tune=True) == list(STEPS)
    only = [step.name for step in plan(STEPS, ["primal"], tune=False)]
    assert only == ["build", "gate_loss", "gate_encoder", "primal"]
    with pytest.raises(ValueError, match=r"only: expected one of build, .*, got speed"):
        plan(STEPS, ["speed"], tune=False)


def test_every_step_has_its_work() -> None:
    for step in STEPS:
        if step.command is None:
            assert hasattr(gpu_steps, step.name) or hasattr(gpu_trajectory, step.name), step.name


def test_a_failure_skips_what_needs_it_and_nothing_else() -> None:
    steps = [Step("a", 5), Step("b", 5, ("a",)), Step("c", 5), Step("d", 5, ("b",))]

    def run(step: Step, seconds: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        status = "failed" if step.name == "a" else "ok"
        return {"status": status}, [{"op": "x", "value": 1}]

    rows = run_all(steps, run)
    status = {row["step"]: row["status"] for row in rows if row["op"] == "step"}
    assert status == {"a": "failed", "b": "skipped", "c": "ok", "d": "skipped"}
    assert [row["step"] for row in rows if row["op"] == "x"] == ["a", "c"]
    assert next(row for row in rows if row["step"] == "d")["reason"] == "needs b"


def test_the_limit_holds_for_all_together() -> None:
    now, given = [0.0], []

    def run(step: Step, seconds: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        given.append(seconds)
        now[0] += seconds
        return {"status": "ok"}, []

    steps = [Step(name, 50) for name in "abc"]
    rows = run_all(steps, run, clock=lambda: now[0], limit=80)
    assert given == [50, 30]
    assert rows[-1]["reason"] == "the 80 s are over"


def test_a_step_is_a_process_that_may_fail_or_hang() -> None:
    good, _ = run_step(Step("x", 20, command=("-c", "print(1); print('last')")), 20)
    assert (good["status"], good["tail"]) == ("ok", ["last"])
    bad, _ = run_step(Step("x", 20, command=("-c", "raise SystemExit('because')")), 20)
    assert (bad["status"], bad["reason"], bad["tail"]) == ("failed", "exit status 1", ["because"])
    begin = time.monotonic()
    sleep = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    code = f"import subprocess, sys; subprocess.run({sleep})"
    slow, _ = run_step(Step("x", 20, command=("-c", code)), 1)
    assert slow["status"] == "timeout"
    assert time.monotonic() - begin < 15


def test_rows_survive_a_step_that_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_text('{"op": "x"}\n{"op": "y", "va')
    assert gpu._read(file) == [{"op": "x"}]
    assert gpu._read(tmp_path / "none") == []


def test_a_report_remembers_failures_and_says_why_a_peer_is_missing(tmp_path: Path) -> None:
    report = gpu_steps.Report(tmp_path / "rows")
    report.add("gate", ok=True)
    assert not report.failed

    def missing() -> dict[str, Any]:
        raise ImportError("no peer")

    assert report.attempt("loss", {"variant": "peer"}, missing) is None
    assert not report.failed
    report.add("gate", ok=False)
    assert report.failed
    lines = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert lines[1] == {"op": "loss", "variant": "peer", "skipped": "ImportError: no peer"}


def test_rows_say_what_they_were_made_with() -> None:
    (row,) = complete([{"op": "x"}], {"gpu": "some"}, record.environment())
    assert row["device"] == {"gpu": "some"}
    assert {"torch", "triton", "python"} <= row["versions"].keys()
    assert {"commit", "date", "command", "dirty"} <= row.keys()
    json.dumps(row)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says something else with a GPU")
def test_without_a_gpu_it_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert gpu.main(["--out", str(tmp_path / "rows")]) == 2
    error = capsys.readouterr().err
    assert error == "bench.gpu: device: expected a usable CUDA device, got none\n"
    assert not (tmp_path / "rows").exists()


def test_an_unknown_step_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--only", "speed"]) == 2
    assert "only: expected one of" in capsys.readouterr().err


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_the_vmapped_peer_trains_the_same_run(
    modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "cuda", lambda x: x)
    cfg = gpu_trajectory.PAPER.replace(n=12, m=5, d=30, epochs=4, modality=modality, device="cpu")
    data = gpu_trajectory.samples(cfg, 2)
    found = gpu_trajectory._vmapped(cfg, data)()
    for losses, x in zip(found, data, strict=True):
        torch.testing.assert_close(losses, eager_losses(cfg, x))

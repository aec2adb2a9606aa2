"""The plan of `python -m bench.gpu`, what it records, and what it says without a GPU."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl_fast.bench import record
from mmcl_fast.bench.gpu import __main__ as gpu
from mmcl_fast.bench.gpu import plan as gpu_plan
from mmcl_fast.bench.gpu import runner, sanitizer, timing
from mmcl_fast.bench.gpu import steps as gpu_steps
from mmcl_fast.bench.gpu.plan import LIMIT_S, SEQUENTIAL_S, STEPS, TOGETHER_S, Step, plan
from mmcl_fast.bench.gpu.runner import rows_of, run_all, run_step

ROOT = Path(__file__).parents[3]
COMMON = {"device": {"gpu": "some"}, "commit": "c" * 40, "date": "2026-01-01"}


def code(text: str, **fields: Any) -> Step:
    return Step("x", 20, command=("-c", text), **fields)


def run(step: Step, seconds: float, folder: Path) -> dict[str, Any]:
    return run_step(step, seconds, folder / "rows", COMMON)


def test_budgets_fit_the_limit_and_needs_come_first() -> None:
    seen: list[str] = []
    for step in STEPS:
        exact = [need for need in step.needs if "*" not in need]
        assert set(exact) <= {*seen}, step.name
        seen.append(step.name)
    build, *others = STEPS
    assert all(step.seconds <= TOGETHER_S == 120 for step in others if step.together)
    timed = [step for step in others if not step.together and not step.optional]
    assert sum(step.seconds for step in timed) <= SEQUENTIAL_S == 268
    most = sum(step.seconds for step in others if not step.together)
    assert build.seconds + TOGETHER_S + most <= LIMIT_S == 8 * 60


def test_timings_come_last_and_alone() -> None:
    together = [step.together for step in STEPS]
    first, last = together.index(True), len(STEPS) - together[::-1].index(True)
    assert all(together[first:last])
    assert [step.name for step in STEPS[:first]] == ["build"]
    assert {step.name for step in STEPS[last:]} == {step.name for step in gpu_plan.TIMED}


def test_plan() -> None:
    names = [step.name for step in plan(STEPS, [])]
    assert not {"tune", "sanitize_memcheck"} & {*names}
    assert len(names) == sum(not step.optional for step in STEPS)
    assert plan(STEPS, [], tune=True, sanitize=True) == list(STEPS)
    more = {step.name for step in plan(STEPS, [], sanitize=True)} - {*names}
    assert more == {"sanitize_memcheck", "sanitize_racecheck"}
    assert "tune" in {step.name for step in plan(STEPS, [], tune=True)}
    only = [step.name for step in plan(STEPS, ["trajectory"])]
    vouching = ["gate_trajectory", "compile_trajectory 1/2", "compile_trajectory 2/2"]
    assert only == ["build", *vouching, "test_trajectory", "trajectory"]
    with pytest.raises(ValueError, match=r"only: expected one of build, .*, got speed"):
        plan(STEPS, ["speed"])


def test_every_timed_operation_has_tests_that_vouch_for_it() -> None:
    names = [step.name for step in STEPS if step.tests]
    for step in gpu_plan.TIMED:
        if step.name not in ("product", "tune"):
            assert gpu_plan.needed(step, names), step.name


def test_what_no_gpu_ran_yet_vouches_for_itself_alone() -> None:
    names = [step.name for step in STEPS]
    needed = {s.name: set(gpu_plan.needed(s, names)) for s in gpu_plan.TIMED}
    files = {
        step: {x.split()[0] for x in of if x.startswith("test_")} for step, of in needed.items()
    }
    assert {"test_contrast", "test_contrast_gpu", "test_contrast_losses"} <= files["loss"]
    assert files["typical"] - files["loss"] == {"test_contrast_small_batch"}
    assert files["long"] - files["loss"] == {"test_contrast_pipelined"}
    assert files["loss"] <= files["typical"] & files["long"]


def test_the_sanitizer_watches_tests_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for step in gpu_plan.sanitizer_steps():
        module, tool, *tests = (step.command or ())[1:]
        assert module.endswith(".sanitizer")
        line = sanitizer.command(tool, tests)
        assert line[:3] == ["compute-sanitizer", "--tool", tool]
        assert all((ROOT / x).exists() for x in tests if x.startswith("tests/"))
    assert sanitizer.main(["synccheck"]) == 2
    assert "tool: expected one of memcheck, racecheck, got synccheck" in capsys.readouterr().err


def test_without_the_sanitizer_its_steps_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sanitizer.shutil, "which", lambda _: None)
    assert sanitizer.main(["memcheck", "tests"]) == 0
    assert capsys.readouterr().out == f"{sanitizer.MISSING}\n"


def test_a_dry_run_has_every_gate_and_timing() -> None:
    names = [step.name for step in gpu_plan.dry(STEPS)]
    expected = [s.name for s in STEPS if s.name.startswith("gate_") or s in gpu_plan.TIMED]
    assert names == expected


@pytest.mark.process  # two minutes of a core: kernels in the interpreter
def test_dry_run(tmp_path: Path) -> None:
    """Every step works, and all that is ours is found right and timed, without a GPU."""
    out = tmp_path / "rows"
    command = ["-m", "mmcl_fast.bench.gpu", "--dry-run", "--tune", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = list(rows_of(out))
    assert all(row["dry_run"] for row in rows)
    steps = {row["variant"]: row["status"] for row in rows if row["op"] == "step"}
    assert steps == {step.name: "ok" for step in gpu_plan.dry(STEPS)}
    found = [row for row in rows if row["op"] != "step"]
    assert all(row.get("ok", True) for row in found)
    unmeasured = {row["variant"] for row in found if "skipped" in row}
    assert unmeasured <= {"JAX scan", "JAX vmap", "JAX vmap, tf32"}, unmeasured
    variants = {row["variant"] for row in found if "ms" in row or "seconds" in row}
    assert {"mmcl_fast", "mmcl_fast, small batch", "mmcl_fast, small batch, captured",
            "mmcl_fast, pipelined", "dense, compiled", "mmcl sweep", "gram, replayed",
            "triton, tf32x3", "primal, bf16"} <= variants  # fmt: skip
    for op in ("typical", "long"):
        ours = [row for row in found if row["op"] == op and row["variant"].startswith("mmcl")]
        assert all("ok" in r for r in ours if op == "typical" or "pipelined" in r["variant"])


@pytest.mark.process  # half a minute of a core: it collects every test
def test_files_with_gpu_tests_are_found() -> None:
    """By their text, because collecting them takes a machine ten seconds; the same as pytest's."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-m", "gpu", "--collect-only", "-q"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    collected = {Path(line.split("::")[0]) for line in done.stdout.splitlines() if "::" in line}
    assert collected
    assert set(gpu_plan.files_of_tests(ROOT)) == collected
    assert gpu_plan.SHARDS.keys() <= {path.stem for path in collected}


@pytest.mark.parametrize("parts", [1, 3])
def test_parts_of_a_file_are_its_tests(parts: int, tmp_path: Path) -> None:
    marker = "gpu"  # apart: this file has no such tests
    text = f"import pytest\n@pytest.mark.{marker}\n@pytest.mark.parametrize('k', range(7))\n"
    text += "def test_some(k): pass\ndef test_other(): raise ValueError\n"
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_it.py").write_text(text)
    steps = gpu_plan.steps_of_tests(tmp_path, {"test_it": parts})
    assert len(steps) == parts
    found = []
    for step in steps:
        command = [*(step.command or ())[:-1], str(tmp_path / "tests/test_it.py"), "-p"]
        _, output = runner.run_process([*command, "no:randomly"], 60)
        found += re.findall(r"test_some\[(\d)\] PASSED", output)
    assert sorted(found) == list("0123456")


def test_every_step_has_its_work() -> None:
    assert {s.compiles or s.name for s in STEPS if s.command is None} == gpu_steps.steps().keys()


def test_a_failure_skips_what_needs_it_and_nothing_else() -> None:
    needs = {"a": (), "b": ("a",), "c": (), "d": ("b",), "e": ("c*",)}
    steps = [Step(name, 5, of) for name, of in needs.items()]

    def one(step: Step, seconds: float) -> dict[str, Any]:
        return {"status": {"a": "failed", "c": "unfinished"}.get(step.name, "ok")}

    found = run_all(steps, one)
    status = {name: row["status"] for name, row in found.items()}
    assert status == {"a": "failed", "b": "skipped", "c": "unfinished", "d": "skipped", "e": "ok"}
    assert found["d"]["reason"] == "needs b"


def test_what_a_red_step_vouches_for_runs_only_when_told_to_and_says_so() -> None:
    needs = {"a": (), "b": ("a",), "c": ("b",)}
    steps = [Step(name, 5, of) for name, of in needs.items()]
    seen: dict[str, tuple[str, ...]] = {}

    def one(step: Step, seconds: float) -> dict[str, Any]:
        seen[step.name] = step.red
        return {"status": "failed" if step.name == "a" else "ok"}

    run_all(steps, one, even_if_red=True)
    assert seen == {"a": (), "b": ("a",), "c": ()}


def test_rows_of_a_step_that_runs_all_the_same_name_what_is_red(tmp_path: Path) -> None:
    step = Step("x", 60, command=("-c", "pass"), red=("gate",))
    run_step(step, 60.0, tmp_path / "out", {"date": "now"})
    assert [row["red"] for row in rows_of(tmp_path / "out")] == [["gate"]]


def test_the_limit_holds_for_all_together() -> None:
    now, given = [0.0], []

    def one(step: Step, seconds: float) -> dict[str, Any]:
        given.append(seconds)
        now[0] += seconds
        return {"status": "ok"}

    steps = [Step(name, 50) for name in "abc"]
    found = run_all(steps, one, clock=lambda: now[0], limit=80)
    assert given == [50, 30]
    assert found["c"] == {"status": "skipped", "reason": "no time was left"}


def test_only_what_may_run_together_does_and_within_one_time() -> None:
    running: set[str] = set()
    seen: dict[str, set[str]] = {}
    given = {}

    def one(step: Step, seconds: float) -> dict[str, Any]:
        running.add(step.name)
        time.sleep(0.3)
        seen[step.name], given[step.name] = set(running), seconds
        running.discard(step.name)
        return {"status": "ok"}

    together = [Step(name, 20, together=True) for name in "bcde"]
    run_all([Step("a", 20), *together, Step("f", 20), Step("g", 20)], one, workers=2)
    assert all(seen[name] == {name} for name in "afg")
    assert any(len(seen[name]) == 2 for name in "bcde")
    assert all(len(seen[name]) <= 2 for name in "bcde")
    assert given["e"] < 19.8  # those that waited for a worker do not prolong the part


def test_a_step_is_a_process_that_may_fail_or_hang(tmp_path: Path) -> None:
    good = run(code("print(1); print('last')"), 20, tmp_path)
    assert (good["status"], good["tail"]) == ("ok", ["last"])
    bad = run(code("raise SystemExit('in /some/folder/file.py:3')"), 20, tmp_path)
    assert (bad["status"], bad["reason"], bad["tail"]) == (
        "failed", "exit status 1", ["in file.py:3"]
    )  # fmt: skip
    begin = time.monotonic()
    sleep = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    slow = run(code(f"import subprocess, sys; subprocess.run({sleep})"), 1, tmp_path)
    assert slow["status"] == "timeout"
    assert time.monotonic() - begin < 15
    rows = list(rows_of(tmp_path / "rows"))
    assert [row["status"] for row in rows] == ["ok", "failed", "timeout"]
    assert all(row.items() >= COMMON.items() for row in rows)


def test_processes_that_run_together_have_one_thread(tmp_path: Path) -> None:
    threads = "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    assert run(code(threads, together=True), 20, tmp_path)["tail"] == ["1"]


@pytest.mark.parametrize(
    ("output", "status", "failures"),
    [
        ("t.py::a PASSED\nt.py::b[x y] PASSED [ 9%]\nt.py::c", "unfinished", []),
        ("t.py::a PASSED\nt.py::b[x y] FAILED [ 9%]\nt.py::c PASSED", "timeout", ["t.py::b[x y]"]),
    ],
)
def test_tests_whose_time_is_over_are_red_if_one_had_failed(
    output: str, status: str, failures: list[str]
) -> None:
    step = Step("t", 9, command=("-m", "pytest"))
    found = runner._judged(step, None, output, 9)
    assert (found["status"], found["failures"]) == (status, failures)
    assert found["passed"] == 2
    assert runner._judged(step, 1, output, 9)["status"] == "failed"
    assert "status" not in runner._judged(step, runner.NO_TESTS, output, 9)
    assert runner._judged(Step("t", 9), None, output, 9)["status"] == "timeout"


def test_rows_survive_a_step_that_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_text('{"op": "x"}\n{"op": "y", "va')
    assert list(rows_of(file)) == [{"op": "x"}]
    assert list(rows_of(tmp_path / "none")) == []


def test_a_report_writes_at_once_and_says_why_a_peer_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    report = timing.Report(file, COMMON)
    report.add("gate", "ours", {"n": 1}, ok=True)
    assert list(rows_of(file)) == [
        {"op": "gate", "variant": "ours", "settings": {"n": 1}, "ok": True, **COMMON}
    ]
    assert not report.failed

    def missing() -> dict[str, Any]:
        raise ImportError("no peer in /some/folder/x.py\nand so on")

    assert report.attempt("loss", "peer", {}, missing) is None
    assert list(rows_of(file))[1]["skipped"] == "ImportError: no peer in x.py"
    assert not report.failed
    report.add("gate", "ours", {}, ok=False)
    assert report.failed


def test_a_report_begins_nothing_when_its_time_is_over_and_writes_nothing_once(
    tmp_path: Path,
) -> None:
    called = []
    late = timing.Report(tmp_path / "late", until=time.monotonic() + 1)
    assert late.attempt("loss", "ours", {}, lambda: called.append(1) or {}) is None
    assert not called
    assert [row["skipped"] for row in rows_of(tmp_path / "late")] == ["no time was left"]
    once = timing.Report(tmp_path / "once", once=(2, 2))
    assert list(once.assigned("abc")) == ["b"]
    assert once.attempt("loss", "ours", {}, lambda: called.append(1) or {}) == {}
    assert called
    assert not (tmp_path / "once").exists()


def test_rows_say_what_they_were_made_with() -> None:
    row = gpu.common_of({"gpu": "some"}, record.environment())
    assert row["device"] == {"gpu": "some"}
    assert {"torch", "triton", "python"} <= row["versions"].keys()
    assert {"commit", "date", "command", "dirty"} <= row.keys()
    json.dumps(row)


def test_a_run_leaves_rows_of_steps_that_ran_and_that_did_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a process of its own, as steps are: its rows stand between those of steps."""
    out = tmp_path / "rows"
    text = f'open({str(out)!r}, \'a\').write(\'{{"op": "found", "variant": "v"}}\\n\')'
    steps = [
        Step("a", 20, command=("-c", text)),
        Step("b", 20, command=("-c", "raise SystemExit(3)")),
        Step("c", 20, ("b",), command=("-c", "")),
    ]
    assert gpu.run(steps, out, COMMON) == 1
    rows = list(rows_of(out))
    assert [(row["op"], row["variant"]) for row in rows] == [
        ("found", "v"), ("step", "a"), ("step", "b"), ("step", "c")
    ]  # fmt: skip
    assert [row["status"] for row in rows[1:]] == ["ok", "failed", "skipped"]
    assert "needs b" in capsys.readouterr().out
    assert gpu.run(steps[:1], out, COMMON) == 0


def test_what_is_built_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = STEPS[0]
    assert build.name == "build"
    monkeypatch.setattr(runner, "is_built", lambda: True)
    row = run(build, 20, tmp_path)
    assert (row["status"], row["reason"]) == ("ok", "skipped: built already")


def test_the_extension_of_another_checkout_or_an_old_one_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    for file in (here / "setup.py", here / "csrc/core/a.cpp", here / "a.so", other / "a.so"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (1000, 2000 if file.suffix == ".so" else 1000))
    monkeypatch.setattr(record, "ROOT", here)
    found = [0, f"a warning\n{here / 'a.so'}\n"]
    monkeypatch.setattr(runner, "run_process", lambda *_: tuple(found))
    assert runner.is_built()
    os.utime(here / "csrc/core/a.cpp", (1000, 3000))
    assert not runner.is_built()
    os.utime(here / "csrc/core/a.cpp", (1000, 1000))
    found[0] = 1
    assert not runner.is_built()
    found[:] = [0, str(other / "a.so")]
    assert not runner.is_built()


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

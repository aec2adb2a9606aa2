"""Time left that is honest: of runs in hand, of hung workers, of drivers that are gone."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.cli.command_line import run
from mmcl_fast.cli.commands import status as status_module
from mmcl_fast.sweep import make_plan, read_status
from mmcl_fast.sweep.store import status as status_file
from mmcl_fast.sweep.store.drivers import SILENT_SECONDS, Driver, Work, report, withdraw
from mmcl_fast.sweep.store.outlook import rate, seconds_left
from mmcl_fast.sweep.store.plan_file import Outline
from mmcl_fast.sweep.store.status import StatusReader
from mmcl_fast.sweep.store.store import PartInfo, Store, part_info

PLAN = make_plan(
    TrainConfig(n=12, d=60, m=4, epochs=4, n_test=10, data="reduced"),
    grid={"m": [2, 3, 4, 5]},
    seeds=5,
)
OUTLINE = Outline(600, "float32", ("",) * 6, (100,) * 6)


def parts(count: int, seconds: float = 10.0) -> list[PartInfo]:
    """Parts of 100 runs, one each `seconds`, by one worker."""
    return [
        PartInfo(k, "", 100, {"finished": 100}, seconds, 1000.0 + seconds * k, 1, {})
        for k in range(count)
    ]


def driver(*work: Work) -> Driver:
    return Driver("node", 7, 2, 1000.0, work)


def test_a_rate_falls_while_nothing_is_finished() -> None:
    assert rate(parts(5)) == pytest.approx(10.0)
    assert rate(parts(5), now=1040.0) == pytest.approx(10.0)
    assert rate(parts(5), now=1120.0) == pytest.approx(400 / 120)
    assert rate([], now=1000.0) is None
    assert rate(parts(1), now=1000.0) is None


def test_time_left() -> None:
    left = seconds_left
    assert left(parts(6), OUTLINE, [], 10.0) == 0.0
    assert left(parts(4), OUTLINE, [], 10.0) == pytest.approx(20.0), "at that rate"
    assert left(parts(4), OUTLINE, [], None) is None
    # One shard is left, and its runs take 0.1 s each: not a second, whatever the rate.
    started = driver(Work(5, 2.0, 0.5))
    assert left(parts(5), OUTLINE, [started], 100.0) == pytest.approx(8.0)
    assert left(parts(5), OUTLINE, [driver(Work(5, 9.0, None))], 50.0) == pytest.approx(2.0)
    assert left(parts(5), OUTLINE, [driver(Work(5, 11.0, 0.5))], 100.0) is None, "it is late"
    hung = driver(Work(4, 1.0, 0.5), Work(5, 2.0, SILENT_SECONDS))
    assert left(parts(4), OUTLINE, [hung], 10.0) is None


def test_a_hung_worker_and_a_lost_driver_are_shown(
    tmp_path: Path,
    compute: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    compute(PLAN, tmp_path)
    Store(tmp_path).part(3).unlink()
    now = time.time()
    report(tmp_path, Driver("here", 1, 2, now, (Work(3, 95.0, 90.0),)))
    report(tmp_path, Driver("gone", 2, 8, now - 300, (Work(2, 5.0, 0.1),)))
    found = read_status(tmp_path)
    assert [each.name for each in found.drivers] == ["gone-2", "here-1"]
    assert found.seconds_left is None
    assert run(["status", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    for text in (
        "here-1: 1 of 2 workers, longest shard 3 for 1 min 35 s",
        "shard 3 of here-1: no sign of life for 1 min 30 s",
        "unknown: a worker is hung",
        "gone-2 for 5 min 0",
        "s each in shard",
    ):
        assert text in said
    (tmp_path / "drivers" / "here-1.json").write_text("{}")
    assert run(["status", str(tmp_path)]) == 2
    assert "here-1.json: expected a driver's report in" in capsys.readouterr().err


def test_a_driver_withdraws(tmp_path: Path) -> None:
    one, other = Driver("a", 1, 1, 0.0, ()), Driver("b", 2, 1, 0.0, ())
    report(tmp_path, one)
    report(tmp_path, other)
    withdraw(tmp_path, one)
    assert [path.name for path in (tmp_path / "drivers").iterdir()] == ["b-2.json"]
    withdraw(tmp_path, other)
    assert not (tmp_path / "drivers").exists()
    withdraw(tmp_path, other)


def test_the_slowest_runs_are_named_by_their_settings(tmp_path: Path, compute: Callable) -> None:
    compute(PLAN, tmp_path)
    slow = read_status(tmp_path).slowest
    assert len(slow) == 3
    assert [each.seconds for each in slow] == sorted((s.seconds for s in slow), reverse=True)
    assert {each.settings["m"] for each in slow} < {"2", "3", "4", "5"}
    assert all(each.settings == {"m": str(2 + each.shard)} for each in slow)


def test_json(tmp_path: Path, compute: Callable, capsys: pytest.CaptureFixture) -> None:
    compute(PLAN, tmp_path, part=(1, 2))
    assert run(["status", str(tmp_path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["done"], told["counts"]) == (20, 10, {"finished": 10})
    assert {"rate", "seconds_left", "drivers", "slowest", "put_away"} <= set(told)


@pytest.mark.parametrize("flags", [["--json"], []])
def test_watching_ends_with_the_sweep(
    flags: list[str],
    tmp_path: Path,
    compute: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    compute(PLAN, tmp_path, part=(1, 2))
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        compute(PLAN, tmp_path)

    monkeypatch.setattr(status_module.time, "sleep", sleep)
    assert run(["status", str(tmp_path), "--watch", *flags]) == 0
    assert pauses == [pytest.approx(2.0)] or pauses[0] > 2.0
    said = capsys.readouterr().out
    if flags:
        first, last = map(json.loads, said.splitlines())
        assert (first["done"], last["done"]) == (10, 20)
    else:
        assert "10 of 20 (50.0%)" in said
        assert "20 of 20 (100.0%)" in said


def test_watching_reads_a_part_once(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def noted(path: Path, *others: object, **how: object) -> PartInfo:
        read.append(path.name)
        return part_info(path, *others, **how)

    monkeypatch.setattr(status_file, "part_info", noted)
    compute(PLAN, tmp_path, part=(1, 2))
    reader = StatusReader(tmp_path)
    first = reader.read()
    assert len(read) == first.parts == 2
    compute(PLAN, tmp_path)
    again = reader.read()
    assert (again.done, again.parts, again.slowest) == (20, 4, read_status(tmp_path).slowest)
    part = Store(tmp_path).part(0)
    assert sorted(read[:4]) == sorted(p.name for p in part.parent.iterdir()), "two are new"
    read.clear()
    content = part.read_bytes()
    part.write_bytes(content[:-1] + b"x")  # of the same size, not of the same time
    assert part.name in reader.read().bad
    assert read == [part.name]
    part.write_bytes(content)
    compute(
        make_plan(PLAN.recipe.base, grid={"m": [2, 3, 4, 5, 6]}, seeds=5), tmp_path, extend=True
    )
    read.clear()
    assert reader.read().done == 25
    assert len(read) == 5, "compared with the extended plan"


def test_watching_ends_where_the_rest_is_quarantined_and_nobody_is_at_work(
    tmp_path: Path,
    compute: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    compute(PLAN, tmp_path)
    store, pauses = Store(tmp_path), []
    store.part(3).unlink()
    store.quarantine_shard(3, 5, "SIGKILL")
    report(tmp_path, Driver("node", 7, 2, time.time(), ()))

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        assert len(pauses) == 1, "it does not end"
        withdraw(tmp_path, Driver("node", 7, 2, 0.0, ()))

    monkeypatch.setattr(status_module.time, "sleep", sleep)
    assert run(["status", str(tmp_path), "--watch"]) == 1
    assert "quarantined (3); run the sweep again" in capsys.readouterr().err
    store.part(2).unlink()  # which another job may compute
    assert not read_status(tmp_path).is_stuck

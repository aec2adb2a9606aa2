"""Progress: rate and time left are those of the work being done, wherever it is shown."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from mmcl_fast import TrainConfig, train, train_many
from mmcl_fast import progress as module
from mmcl_fast.engines import NativeEngine
from mmcl_fast.progress import progress
from mmcl_fast.sweep import make_plan, run_sweep
from mmcl_fast.sweep.execute.worker_pool import Died, Done, Tally
from tests.sweep.conftest import InlinePool

TINY = TrainConfig(
    n=20, d=50, m=6, n_test=10, epochs=9, evaluate_every=4, engine="native", device="cpu"
)


def test_what_was_done_before_is_not_in_the_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress(1000, "runs") as shown:
        now[0] += 10.0  # until it is known what is there
        shown.advance("sweep", 500)
        now[0] += 40.0
        shown.advance("sweep", 600)
        now[0] += 10.0
        shown.advance("sweep", 700)  # too soon for another line
    said = capsys.readouterr().err
    assert said == "sweep: 600 of 1000 runs, 2.5 runs/s, 160 s left\n"


def test_python_shows_progress_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
    train(TINY)
    train_many([TINY])
    assert capsys.readouterr().err == ""
    train(TINY, progress=True)
    assert capsys.readouterr().err.splitlines()[-1].startswith("training: 9 of 9 epochs, ")
    runs = train_many([TINY.replace(seed=s, m=m) for s in (0, 1) for m in (4, 6)], progress=True)
    assert len(runs) == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith("training: 36 of 36 run-epochs, ")
    plan = make_plan(TINY, grid={"m": [4, 6]}, seeds=2)
    monkeypatch.setattr("mmcl_fast.sweep.execute.runner._pool", lambda *a: InlinePool())
    run_sweep(plan, tmp_path, progress=True)
    assert capsys.readouterr().err.splitlines()[-1].startswith("sweep: 4 of 4 runs, ")


def test_progress_of_a_sweep_says_what_went_wrong() -> None:
    tally = Tally()
    assert tally.label(Done(0, {"finished": 3}, 1.0)) == "sweep"
    assert tally.label(Done(1, {"finished": 1, "failed": 2}, 1.0)) == "2 failed"
    assert tally.label(Died(2, "SIGKILL")) == "2 failed, 1 retried"
    assert tally.label(Done(2, {"diverged": 4}, 1.0)) == "4 diverged, 2 failed, 1 retried"


def test_progress_costs_no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine still trains up to the next evaluation in one call."""
    counts = []
    run = NativeEngine.run

    def counted(self: NativeEngine, count: int, *, update: bool) -> object:
        counts.append(count)
        return run(self, count, update=update)

    monkeypatch.setattr(NativeEngine, "run", counted)
    train(TINY, progress=True)
    assert counts == [4, 4, 1, 1]


class Shown:
    """IPython's display, as far as it is used."""

    def __init__(self, html: str) -> None:
        self.pages = [html]

    def update(self, html: str) -> None:
        self.pages.append(html)


def test_a_notebook_has_one_line_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    handles: list[Shown] = []

    def display(html: str, *, display_id: bool) -> Shown:
        assert display_id
        handles.append(Shown(html))
        return handles[-1]

    shell = type("ZMQInteractiveShell", (), {})()
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    ipython.display = ModuleType("IPython.display")
    ipython.display.HTML, ipython.display.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    monkeypatch.setattr(module, "NOTEBOOK_EVERY_S", 0.0)
    train(TINY, progress=True)
    (handle,) = handles
    assert handle.pages[0] == "<code>starting</code>"
    assert handle.pages[-1].startswith("<code>training: 9 of 9 epochs, ")
    assert len(handle.pages) == 2 + 4

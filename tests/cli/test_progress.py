"""Progress in a log: rate and time left are those of the work being done."""

import pytest

from mmcl_fast.cli import progress as module
from mmcl_fast.cli.progress import progress


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

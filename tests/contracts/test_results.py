"""Tables of numbers in the documents are those of the committed results."""

import sys

import pytest

from mmcl_fast.bench import report


def test_tables_are_current(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.report", "--check"])
    assert report.main() == 0, capsys.readouterr().out


def test_a_changed_number_is_seen() -> None:
    text = (report.ROOT / "README.md").read_text()
    before, _, after = text.partition("<!-- figure1 -->")
    assert after, "README.md has the table"
    assert report.render(before + "<!-- figure1 -->" + after.replace("0.", "1.", 1)) == text

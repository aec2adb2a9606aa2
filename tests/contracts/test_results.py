"""Tables of numbers in the documents are those of the committed results."""

import json
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


def test_data_table_is_of_the_latest_run_and_does_without_mkl(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(report, "CPU", tmp_path / "cpu.jsonl")
    run = {"cpu": "a CPU", "load_1min": 0.5, "commit": "c" * 40, "dirty": False, "command": "x"}
    gram = {"variant": "reduced data", "settings": {"n": 3, "d": 10}, "cpu_ms": {"p50": 0.5}}
    gram |= {"of_best_bare": 0.25}
    rows = [
        {"op": "gram", **gram, "times_streaming": 77.0, "date": "2026-01-01", **run},
        {
            "op": "normals",
            "variant": "ours",
            "settings": {"values": 2**20},
            "giga_per_s": 1.25,
            "times_numpy": 12.0,
            "times_torch": 5.0,
            "of_memset": 0.5,
            "date": "2026-01-02",
            **run,
        },
        {"op": "gram", **gram, "times_streaming": 1234.0, "date": "2026-01-02", **run},
        {"op": "train", "date": "2026-01-03", **run},
    ]
    report.CPU.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = report.data_table()
    assert "| ours | 1.25 | 12.00 | 5.00 | – | 50% |" in text
    assert "| reduced data | 0.5 | 0.25 | 1,234 |" in text
    assert "77" not in text


def test_missing_results_are_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(report, "CPU", tmp_path / "cpu.jsonl")
    report.CPU.write_text("")
    with pytest.raises(ValueError, match="rows of op startup, got none"):
        report.startup_table()

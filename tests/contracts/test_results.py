"""Tables of numbers in the documents are those of the committed results."""

import json
import re
import sys
from pathlib import Path

import pytest

from mmcl_fast.bench.cpu import choices
from mmcl_fast.bench.report import __main__ as report

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "bench/README.md", *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted(
    path
    for folder in ("mmcl_fast", "kernels", "csrc", "bench")
    for suffix in ("py", "h", "cpp")
    for path in (ROOT / folder).rglob(f"*.{suffix}")
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


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


def test_readme_fits_a_page_and_leaves_the_tables_to_the_benchmarks() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    columns = [line.count("|") - 1 for line in lines if line.startswith("| ")]
    assert max(columns) <= 4
    assert "Not measured" not in "\n".join(lines)


def test_the_headline_names_the_fastest_peer_and_a_case_that_it_wins() -> None:
    rows = [line.split(" | ") for line in report.TABLES["headline"]().splitlines()[2:]]
    ratios = [float(row[3].rstrip(" |")) for row in rows if len(row) == 4]
    assert 6 <= len(ratios) <= 8
    assert min(ratios) < 1 < max(ratios)


def test_every_table_has_a_page_that_is_rendered_and_every_marker_a_table() -> None:
    marked: set[str] = set()
    for path in PAGES:
        text = path.read_text()
        opened = re.findall(r"^<!-- (\w+) -->$", text, re.MULTILINE)
        assert opened == re.findall(r"^<!-- /(\w+) -->$", text, re.MULTILINE), name(path)
        assert not opened or name(path) in report.DOCUMENTS, f"{name(path)} would never be rendered"
        marked |= set(opened)
    assert marked == set(report.TABLES)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_no_mean_with_a_spread_is_typed_by_hand(path: Path) -> None:
    rest = re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", "", path.read_text(), flags=re.DOTALL)
    assert not re.findall(r"\d ± \d.*", rest)


def is_command(module: str) -> bool:
    path = ROOT / "bench" / module.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def test_commands_in_comments_exist_and_measure_what_refers_to_them() -> None:
    """A comment names a command instead of a number: the command must be there to give it."""
    referring = set()
    for path in SOURCES:
        for module in re.findall(
            r"python\s+-m\s+(?:(?:#|//)\s+)?(?:mmcl_fast\.)?bench\.(\w+(?:\.\w+)*)",
            path.read_text(),
        ):
            assert is_command(module), f"{name(path)}: bench.{module}"
            if module == "cpu.choices" and ROOT / "bench" not in path.parents:
                referring.add(name(path))
    assert referring == {choice.where for choice in choices.CHOICES}


@pytest.mark.parametrize("file", sorted(path.name for path in report.RESULTS.glob("*.jsonl")))
def test_rows_say_where_they_come_from(file: str) -> None:
    for line in (report.RESULTS / file).read_text().splitlines():
        row = json.loads(line)
        missing = {"op", "variant", "settings", "cpu", "commit", "dirty", "date", "command"} - {
            *row
        }
        assert not missing, (row["op"], missing)
        assert not re.search(r"(^|[ =])/", row["command"]), row["command"]

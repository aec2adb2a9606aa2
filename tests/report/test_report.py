"""The file: whole, by itself, with the numbers of the store, or one clear error."""

import csv
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmcl_fast import BackendUnavailableError, ConfigError, TrainConfig, sweep
from mmcl_fast.cli.command_line import run as mmcl
from mmcl_fast.report import write_report
from mmcl_fast.sweep import Plan
from mmcl_fast.sweep.store.plan_file import write_plan
from mmcl_fast.sweep.store.schema import CURVES, Rows, list_column, part_schema, setting_columns
from mmcl_fast.sweep.store.store import Store, provenance

pytest.importorskip("vl_convert", reason="extra [report] is not installed")


@pytest.fixture(scope="module")
def page(store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "new/report.html"
    report = write_report(store, out)
    assert (report.settings, report.runs, report.epochs, report.run_curves) == (12, 36, 13, 36)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out.read_text()


def rows_of(page: str, name: str) -> list[dict[str, str]]:
    """A data set of the specification in a page."""
    text = re.search(r'id="specification">(.*?)</script>', page, re.DOTALL)
    assert text is not None
    data = {one["name"]: one for one in json.loads(text[1])["data"]}
    return list(csv.DictReader(io.StringIO(data[name]["values"])))


def test_numbers_are_those_of_the_store(page: str, store: Path) -> None:
    rows = sweep.load(store).to_pylist()
    specification = re.search(r'id="specification">(.*?)</script>', page, re.DOTALL)
    signals = {s["name"]: s for s in json.loads(specification[1])["signals"]}
    axes = signals["axes"]["value"]
    assert [axis["name"] for axis in axes] == ["m", "snr", "modality"]
    found = rows_of(page, "settings")
    assert len(found) == 12
    for row in found:
        m, snr, modality = (axis["labels"][int(row[f"a{k}"])] for k, axis in enumerate(axes))
        mine = [
            r
            for r in rows
            if r["m"] == int(m)
            and np.isclose(r["snr"], float(snr))
            and r["modality"] == modality == row["modality"]
        ]
        assert len(mine) == int(row["finished"]) == 3
        for name in ("loss", "ood_accuracy", "signal", "noise"):
            finals = np.array([r[f"final_{name}"] for r in mine])
            assert float(row[f"{name}_mean"]) == pytest.approx(finals.mean(), rel=1e-5)
            assert float(row[f"{name}_sd"]) == pytest.approx(finals.std(ddof=1), rel=1e-5, abs=1e-9)
            assert float(row[f"{name}_least"]) == pytest.approx(finals.min(), rel=1e-5)
            curves = np.array([r[name] for r in mine]).mean(0)
            shown = [float(v or "nan") for v in row[f"{name}_means"].split(" ")]
            np.testing.assert_allclose(shown, curves, rtol=1e-3)


def test_the_map_shows_accuracies_of_more_classes(page: str, tmp_path: Path) -> None:
    assert "of_accuracy ? [0.5, 1.0] :" in page
    base = TrainConfig(n=12, d=40, n_test=20, m=2, epochs=1, data="reduced")
    plan = sweep.make_plan(base, grid={"classes": [2, 5]})
    sweep.run_sweep(plan, tmp_path / "s", policy=sweep.Policy(workers=1))
    text = write_report(tmp_path / "s", tmp_path / "x.html").path.read_text()
    assert "of_accuracy ? [0.0, 1.0] :" in text


def test_single_runs_are_there(page: str, store: Path) -> None:
    rows = {row["run_id"]: row for row in sweep.load(store).to_pylist()}
    found = rows_of(page, "runs")
    assert {int(row["run"]) for row in found} == set(rows)
    for row in found:
        signal = [float(v) for v in row["signal_values"].split(" ")]
        np.testing.assert_allclose(signal, rows[int(row["run"])]["signal"], rtol=1e-3)
        assert int(row["seed"]) == rows[int(row["run"])]["seed"]


def test_nothing_is_named_elsewhere(page: str) -> None:
    before_script = page.partition("<script>")[0]
    assert not re.findall(r'(?:src|href)="(?!data:)', before_script)
    assert "default-src 'none'" in page
    assert page.count("<script>") == page.count("</script>") - 1  # and the specification's


def test_what_was_run_is_said(page: str) -> None:
    assert "36: 36 finished" in page
    assert "36 runs, 12 settings" in page
    assert "0.01, 0.1, 1" in page
    assert "thin lines of every run" in page


def test_diverged_runs_and_thin_lines_of_some(diverged: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("mmcl_fast.report.budget.MOST_RUNS", 2)
    page = write_report(diverged, tmp_path / "x.html").path.read_text()
    assert "6: 3 finished, 3 diverged" in page
    assert "of the first 2 runs of each setting" in page
    found = {row["a0"]: row for row in rows_of(page, "settings")}
    assert (found["0"]["finished"], found["1"]["diverged"]) == ("3", "3")
    assert found["1"]["loss_mean"] == ""
    assert found["0"]["t1"] == "", "q = 4 has no T1"


def test_some_settings(store: Path, tmp_path: Path) -> None:
    report = write_report(store, tmp_path / "x.html", where=["m=3", "snr=0.01,1"])
    assert (report.settings, report.runs) == (4, 12)
    assert "4 of them here" in report.path.read_text()


def test_a_name_is_no_markup(store: Path, tmp_path: Path) -> None:
    odd = tmp_path / "<b>&</script><script>alert(1)"
    odd.parent.mkdir(exist_ok=True)
    (tmp_path / "x").mkdir()
    link = tmp_path / "x" / "a<b>&c"
    link.symlink_to(store)
    text = write_report(link, tmp_path / "x.html").path.read_text()
    assert "<b>" not in text.partition("<script>")[0]


def test_failed_runs_are_counted_with_their_errors(tmp_path: Path) -> None:
    plan = sweep.make_plan(TrainConfig(n=10, d=30, m=2, epochs=2, data="reduced"), seeds=4)
    out = tmp_path / "store"
    (out / "parts").mkdir(parents=True)
    write_plan(plan, out)
    for shard in range(plan.shards):
        runs = plan.runs_of(shard)
        Store(out).publish(plan, shard, failed_rows(plan, runs), provenance(1))
    page = write_report(out, tmp_path / "x.html").path.read_text()
    assert "4: 2 finished, 2 failed" in page
    assert "<dd>2 with ValueError: &lt;odd&gt;</dd>" in page
    (row,) = rows_of(page, "settings")
    assert (row["finished"], row["failed"], row["loss_mean"], row["loss_sd"]) == (
        "2",
        "2",
        "1",
        "1.41421",
    )
    assert row["loss_means"] == "4 2 1"
    by_status = {run["status"]: run["loss_values"] for run in rows_of(page, "runs")}
    assert by_status == {"finished": "4 2 2", "failed": "  "}


def failed_rows(plan: Plan, runs: np.ndarray) -> Rows:
    """Runs 0 and 2 finish, with last losses 0 and 2; the others fail."""
    schema = part_schema(plan.dtype)
    columns = setting_columns(plan, runs)
    good = runs % 2 == 0
    curves = [
        np.array([4.0, 2.0, run]) if fine else None for run, fine in zip(runs, good, strict=True)
    ]
    columns["status"] = pa.array(["finished" if fine else "failed" for fine in good])
    columns["diverged_at"] = pa.nulls(len(runs), pa.int32())
    columns["error"] = pa.array(
        [None if fine else "ValueError: <odd>" for fine in good], pa.string()
    )
    for name in CURVES:
        columns[name] = list_column(curves, schema.field(name).type)
        finals = [float(run) if fine else None for run, fine in zip(runs, good, strict=True)]
        columns[f"final_{name}"] = pa.array(finals, pa.float64())
    columns["computed_on"] = pa.array(["x"] * len(runs))
    table = pa.table([columns[field.name] for field in schema], schema=schema)
    return Rows(table, {}, 1.0)


def test_runs_of_different_lengths(tmp_path: Path) -> None:
    base = TrainConfig(n=10, d=30, m=2, n_test=20, data="reduced")
    plan = sweep.make_plan(base, grid={"epochs": [3, 6]}, seeds=2)
    sweep.run_sweep(plan, tmp_path / "s", policy=sweep.Policy(workers=1))
    page = write_report(tmp_path / "s", tmp_path / "x.html").path.read_text()
    rows = sweep.load(tmp_path / "s").to_pylist()
    for row, epochs in zip(rows_of(page, "settings"), (3, 6), strict=True):
        mine = [r for r in rows if r["epochs"] == epochs]
        shown = row["loss_means"].split(" ")
        assert [bool(text) for text in shown] == [k <= epochs for k in range(7)]
        finals = np.mean([r["final_loss"] for r in mine])
        assert float(row["loss_mean"]) == pytest.approx(finals, rel=1e-5)
        assert float(shown[epochs]) == pytest.approx(finals, rel=1e-3)


MISTAKES = [
    (["--out", "x.htm"], "out: expected a file ending in .html, got 'x.htm'"),
    (["--where", "m=7"], "where: expected a value of m in the store (2, 3), got 7"),
    (["--where", "mm=7"], "mm: unknown column; did you mean m?"),
    (["--where", "m=2,"], "where: expected name=value or name=value,value, got 'm=2,'"),
]


@pytest.mark.parametrize(("flags", "message"), MISTAKES, ids=lambda x: str(x)[:30])
def test_mistakes(store: Path, flags: list[str], message: str, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in flags else ["--out", "x.html"]
    assert mmcl(["report", str(store), *flags, *out]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_wrote(store: Path, tmp_path: Path, capsys) -> None:
    assert mmcl(["report", str(store), "--out", str(tmp_path / "x.html")]) == 0
    assert "36 runs of 12 settings, curves at 13 epochs and of 36 single" in capsys.readouterr().out


def test_no_run_yet(tmp_path: Path) -> None:
    plan = sweep.make_plan(TrainConfig(n=10, d=30, data="reduced", epochs=1), seeds=2)
    (tmp_path / "store").mkdir()
    write_plan(plan, tmp_path / "store")
    with pytest.raises(ConfigError, match="store: expected rows to report, got 0 of 2"):
        write_report(tmp_path / "store", tmp_path / "x.html")


def test_without_the_package(store: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'mmcl-fast\[report\]'"):
        write_report(store, tmp_path / "x.html")
    assert not list(tmp_path.iterdir())

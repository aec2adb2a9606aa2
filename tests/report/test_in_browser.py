"""The report in Chromium: opened from disk, without a network, and what a click changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcl_fast import sweep
from mmcl_fast.report import write_report
from tests.support.browser import chromium, open_from_disk, open_pages

pytest.importorskip("vl_convert", reason="extra [report] is not installed")
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(chromium() is None, reason="no Chromium (Debian: apt-get install chromium)"),
]

# What a reader does, and sees. A pause lets Vega draw.
ACT = """(async () => {
const pause = () => new Promise(done => setTimeout(done, 300));
for (let k = 0; k < 100 && !document.querySelector("#view .cell path"); k++) await pause();
const all = pattern => [...document.querySelectorAll(pattern)];
const texts = () => all("#view text").map(e => e.textContent);
const curve = () => all("#view .mark-line path").map(e => e.getAttribute("d")).join();
const cells = () => all("#view .cell path");
const press = (element, kinds) => {
  const box = element.getBoundingClientRect();
  for (const kind of kinds) element.dispatchEvent(new PointerEvent(kind, {
    bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2}));
};
const choose = async (name, label) => {
  const bind = all("#controls .vega-bind").find(
    e => e.querySelector(".vega-bind-name").textContent === name);
  const select = bind.querySelector("select");
  select.selectedIndex = [...select.options].findIndex(o => o.textContent === label);
  select.dispatchEvent(new Event("change"));
  await pause();
};
const seen = {cells: cells().length, before: curve(), wide: document.body.scrollWidth};
const wanted = cells().find(e => e.getAttribute("aria-label").startsWith("m=3 snr=1 "));
press(wanted, ["pointerover", "pointermove", "mousemove", "click"]);
await pause();
seen.after = curve();
seen.chosen = texts().find(t => t.startsWith("m = "));
seen.tooltip = (document.querySelector("#vg-tooltip-element") || {}).textContent;
await choose("Quantity", "training loss");
seen.loss = cells().map(e => e.getAttribute("aria-label"));
const slider = document.querySelector("#controls input[type=range]");
slider.value = 4;
slider.dispatchEvent(new Event("input"));
await pause();
seen.titles = texts().filter(t => t.startsWith("Map: "));
seen.early = cells().map(e => e.getAttribute("aria-label"));
await choose("Horizontal axis", "SNR");
seen.axes = all("#view .role-axis-title text").map(e => e.textContent);
const clicked = [];
window.HTMLAnchorElement.prototype.dispatchEvent = function () { clicked.push(this.href); };
for (const link of all("#view .csv text")) press(link, ["click"]);
await pause();
seen.saved = clicked.map(href => decodeURIComponent(href.split(",").slice(1).join(",")));
const search = document.querySelector("#controls input[type=text]");
search.value = "m=2 multi";
search.dispatchEvent(new Event("input"));
await pause();
const head = all("#view .head text").find(e => e.textContent.startsWith("mean"));
press(head, ["click"]);
await pause();
press(all("#view .head text").find(e => e.textContent.startsWith("mean")), ["click"]);
await pause();
seen.found = texts().find(t => t.includes(" settings;"));
seen.sorted = texts().find(t => t.startsWith("mean "));
seen.rows = all("#view .row path").length;
delete window.HTMLAnchorElement.prototype.dispatchEvent;
return seen;
})()"""


@pytest.fixture(scope="module")
def seen(store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("browser")
    write_report(store, out / "site/report.html")
    profile = out / "profile"
    return open_pages(out / "site", ["report.html"], (1280, 390), profile, timeout=120, script=ACT)


def mean(store: Path, value: str, **settings: Any) -> float:
    rows = [
        row[value] if "final" in value else row[value.partition("@")[0]][int(value[-1])]
        for row in sweep.load(store).to_pylist()
        if all(
            row[k] == v if isinstance(v, str) else np.isclose(row[k], v)
            for k, v in settings.items()
        )
    ]
    assert len(rows) == 3
    return float(np.mean(rows))


def test_nothing_is_said_or_fetched_and_nothing_is_wide(seen: list[dict[str, Any]]) -> None:
    for page in seen:
        for kind in ("said", "elsewhere", "wide", "images"):
            assert not page[kind], (page["width"], kind, page[kind])
        assert page["acted"]["wide"] <= page["width"]


def test_a_click_changes_the_curves(seen: list[dict[str, Any]], store: Path) -> None:
    for page in seen:
        acted = page["acted"]
        assert acted["cells"] == 6
        assert acted["before"] != acted["after"]
        assert acted["chosen"] == "m = 3, SNR = 1"
        value = mean(store, "final_ood_accuracy", m=3, snr=1.0, modality="multi")
        assert f"{value:.6g} ± " in acted["tooltip"]


def test_numbers_are_those_of_the_store(seen: list[dict[str, Any]], store: Path) -> None:
    for page in seen:
        for key, value in (("loss", "final_loss"), ("early", "loss@4")):
            assert len(page["acted"][key]) == 6
            for text in page["acted"][key]:
                settings, _, shown = text.partition(": ")
                at = dict(pair.split("=") for pair in settings.split())
                wanted = mean(
                    store, value, m=int(at["m"]), snr=float(at["snr"]), modality=at["modality"]
                )
                assert float(shown) == pytest.approx(wanted, rel=1e-3), (key, text)
        assert page["acted"]["titles"] == ["Map: training loss, epoch 4"]
        assert page["acted"]["axes"][:2] == ["SNR", "m"]


def test_the_view_is_saved_as_csv(seen: list[dict[str, Any]]) -> None:
    shown_map, lines, curves, table = seen[0]["acted"]["saved"]
    header = "m,snr,modality,finished,diverged,failed,epoch,quantity,mean,sd"
    for text, rows in ((shown_map, 6), (lines, 6), (table, 12)):
        assert text.splitlines()[0] == header
        assert len(text.splitlines()) == rows + 1
        assert all(len(line.split(",")) == 10 for line in text.splitlines())
    assert curves.splitlines()[0] == "modality,quantity,epoch,mean,sd"
    # Two modalities, three curves at 13 epochs, and accuracy at 4.
    assert len(curves.splitlines()) == 1 + 2 * (3 * 13 + 4)


def test_the_table_is_searched_and_sorted(seen: list[dict[str, Any]]) -> None:
    for page in seen:
        acted = page["acted"]
        assert acted["found"].startswith("3 of 12 settings")
        assert acted["rows"] == 3
        assert acted["sorted"] == "mean ▼"


def test_opened_from_disk(store: Path, tmp_path: Path) -> None:
    out = write_report(store, tmp_path / "report.html").path
    shown = open_from_disk(out, tmp_path / "profile", timeout=60)
    assert 'aria-label="m=2 snr=0.01 ' in shown
    assert "Sweep widths" in shown

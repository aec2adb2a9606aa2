"""Examples: their numbers are those of single runs, and the command leaves what it says."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest

from mmcl_fast import metrics, train
from mmcl_fast.cli.command_line import run as mmcl
from mmcl_fast.experiments.examples import false_pairs, label_noise, minority, modality_gap
from mmcl_fast.experiments.examples.names import ABOUT, SOURCES, ExampleName
from mmcl_fast.experiments.examples.result import HeatPanel, LinePanel
from mmcl_fast.plotting import example

NAMES = get_args(ExampleName)
SMALL = {"n": 12, "d": 40, "m": 6, "n_test": 20, "epochs": 4}


def module_of(name: str) -> ModuleType:
    return import_module(f"mmcl_fast.experiments.examples.{name.replace('-', '_')}")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples of few short runs."""
    for name in NAMES:
        module = module_of(name)
        evaluated = {"evaluate_every": min(4, module.CONFIG.evaluate_every)}
        monkeypatch.setattr(module, "CONFIG", module.CONFIG.replace(**SMALL, **evaluated))
        monkeypatch.setattr(module, "SEEDS", 2)
    monkeypatch.setattr(false_pairs, "SHARES", (0.0, 0.5))
    monkeypatch.setattr(minority, "EXPONENTS", (0.0, 1.0))
    monkeypatch.setattr(label_noise, "SAMPLES", (8, 12))
    monkeypatch.setattr(label_noise, "SNRS", (0.1, 0.3, 0.5))


def told(count: int) -> None:
    """A display that nobody sees."""


def test_every_name_has_a_module_a_page_and_a_source() -> None:
    root = Path(__file__).parents[2]
    assert tuple(ABOUT) == tuple(SOURCES) == NAMES
    index = (root / "docs/examples/index.md").read_text()
    for name in NAMES:
        page = (root / f"docs/examples/{name}.md").read_text()
        assert f"mmcl example {name}" in page
        assert (root / f"docs/images/example-{name}.png").exists()
        assert f"]({name}.md)" in index
        assert {"run", "run_epochs", "CONFIG"} <= set(module_of(name).__all__)


@pytest.mark.parametrize("name", NAMES)
def test_run_epochs_are_those_that_are_told(name: str) -> None:
    module, total = module_of(name), []
    result = module.run(full=False, told=total.append)
    assert sum(total) == module.run_epochs(full=False)
    assert result.diverged == 0
    figure = example.example(result)
    titles = [axis.get_title() for axis in figure.axes[: len(result.panels)]]
    assert [panel.title for panel in result.panels] == [title for title in titles if title]
    text = figure.get_supxlabel().replace("\n", " ")
    assert "2 seeds" in text
    assert SOURCES[name] in text
    json.dumps(result.to_json(), allow_nan=False)


def test_a_point_of_false_pairs_is_the_mean_of_its_runs() -> None:
    panels = false_pairs.run(full=False, told=told).panels
    found = {one.label: one.mean[1] for panel in panels for one in panel.lines}
    own = {"shot": metrics.zero_shot_accuracy, "purity": metrics.purity}
    cfg = false_pairs.CONFIG.replace(pair_noise=0.5)
    runs = [train(cfg.replace(seed=s), metrics=own) for s in range(2)]
    for label, name in {"zero-shot": "shot", "purity": "purity"}.items():
        mean = np.mean([one.metrics[name][-1].item() for one in runs])
        assert found[label] == pytest.approx(mean, rel=1e-5)
    for label, name in {"linear probe": "ood_accuracy", "noise": "noise"}.items():
        mean = np.mean([getattr(one, name)[-1].item() for one in runs])
        assert found[label] == pytest.approx(mean, rel=1e-5)


def test_a_cell_of_label_noise_is_its_run() -> None:
    panels = label_noise.run(full=False, told=told).panels
    assert [panel.title for panel in panels] == list(label_noise.KINDS)
    assert isinstance(panels[1], HeatPanel)
    assert panels[1].mean.shape == (3, 2)
    values = []
    for seed in range(2):
        cfg = label_noise.CONFIG.replace(
            n=12, snr=0.3, seed=seed, **label_noise.KINDS[panels[1].title]
        )
        cfg = cfg.replace(nu_norm=cfg.mu_norm)
        one = train(cfg, metrics={"right": metrics.supervised_accuracy})
        values.append(one.metrics["right"][-1].item())
    assert panels[1].mean[1, 1] == pytest.approx(np.mean(values))


def test_curves_of_the_modality_gap_are_those_of_a_run() -> None:
    panels = modality_gap.run(full=False, told=told).panels
    learned = [panel.lines[0].mean[-1] for panel in panels]
    cfg = modality_gap.CONFIG.replace(**modality_gap.LEARNED)
    runs = [train(cfg.replace(seed=s), metrics={"gap": metrics.modality_gap}) for s in range(2)]
    last = [[one.metrics["gap"][-1], one.tau[-1], one.loss[-1]] for one in runs]
    assert learned == pytest.approx(np.mean(last, axis=0), rel=1e-4)
    assert set(panels[1].lines[3].mean) == {0.05}
    assert panels[0].x[-1] == 4


def test_curves_of_minority_are_of_their_exponent() -> None:
    panels = minority.run(full=False, told=told).panels
    assert isinstance(panels[0], LinePanel)
    labels = [one.label for one in panels[0].lines]
    assert labels == [one.label for one in panels[1].lines]
    rare = labels.index("rarest class, multi-modal")
    # Exponent 1 is the last of the axis here, and its last epoch is the second panel.
    assert panels[0].lines[rare].mean[-1] == panels[1].lines[rare].mean[-1]
    cfg = minority.CONFIG.replace(modality="multi", prior_exponent=1.0)
    kinds = {"rare": metrics.minority_learning, "worst": metrics.worst_class_accuracy}
    runs = [train(cfg.replace(seed=s), metrics=kinds) for s in range(2)]
    means = [np.mean([one.metrics[name][-1].item() for one in runs]) for name in kinds]
    found = {one.label: one.mean[-1] for panel in panels[1:] for one in panel.lines}
    expected = [found["rarest class, multi-modal"], found["worst class, multi-modal"]]
    assert expected == pytest.approx(means, rel=1e-5)


def test_the_command(tmp_path: Path, capsys) -> None:
    assert mmcl(["example", "false-pairs", "--out", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["false-pairs.json", "false-pairs.png"]
    found = json.loads((tmp_path / "false-pairs.json").read_text())
    assert found["panels"]["test accuracy"]["values"] == [0.0, 0.5]
    assert found["source"] == SOURCES["false-pairs"]
    assert mmcl(["example", "--list"]) == 0
    assert "after Sun et al." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "NAME: expected one of false-pairs, modality-gap,"),
        (["minorty"], "NAME: expected one of false-pairs, modality-gap,"),
        (["minority", "--list"], "list: expected no example and no --full beside it"),
        (["minority", "--threads", "0"], "threads: expected an integer in 1 .. 4096, got 0"),
    ],
)
def test_mistakes(flags: list[str], message: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert mmcl(["example", *flags, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()

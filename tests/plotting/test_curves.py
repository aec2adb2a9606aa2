"""The pictures: the right numbers in the right panel, drawn whole and the same every time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmcl_fast import OutputError, Run, TrainConfig
from mmcl_fast.experiments.figure1 import MODALITIES, Figure1
from mmcl_fast.plotting import curves as plotting
from mmcl_fast.plotting import table1

ROOT = Path(__file__).parents[2]
EPOCHS = 40
CFG = TrainConfig(epochs=EPOCHS)
NAMES = {"single": "single-modal", "multi": "multi-modal"}
# The order and the words of the paper's Figure 1.
PAPER = {
    "loss": "Training loss",
    "ood_accuracy": "OOD test accuracy",
    "signal": "Signal learning",
    "noise": "Noise memorisation",
}


def made_up(t1: dict[str, float | None], seeds: int = 3) -> Figure1:
    """Curves of which no two are alike, beyond the printed axes on both sides."""
    generator = torch.Generator().manual_seed(0)
    runs: dict[str, list[Run]] = {}
    for modality in MODALITIES:
        cfg = CFG.replace(modality=modality)
        runs[modality] = [
            Run(cfg, *(torch.randn(EPOCHS + 1, generator=generator) * 9 for _ in PAPER))
            for _ in range(seeds)
        ]
    return Figure1(CFG, tuple(range(seeds)), runs, t1)


def curves(result: Figure1, modality: str, name: str) -> np.ndarray:
    return np.stack([getattr(run, name).double().numpy() for run in result.runs[modality]])


def solid_lines(axis: Axes) -> dict[str, np.ndarray]:
    return {
        str(line.get_label()): np.array(line.get_data())
        for line in axis.get_lines()
        if str(line.get_label()).endswith("-modal") and ":" not in str(line.get_label())
    }


def dashed_lines(axis: Axes) -> list[float]:
    lines = [line for line in axis.get_lines() if line.get_linestyle() == "-."]
    for line in lines:
        assert len(set(line.get_xdata())) == 1, "upright"
    return [float(line.get_xdata()[0]) for line in lines]


def edges(band) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, lower and upper edge of what fill_between drew."""
    (path,) = band.get_paths()
    at: dict[float, list[float]] = {}
    for x, y in path.vertices:
        at.setdefault(float(x), []).append(float(y))
    x = np.array(sorted(at))
    return x, np.array([min(at[k]) for k in x]), np.array([max(at[k]) for k in x])


def panels(figure: Figure) -> dict[str, Axes]:
    assert [axis.get_title() for axis in figure.axes] == list(PAPER.values())
    return dict(zip(PAPER, figure.axes, strict=True))


def test_each_panel_shows_its_own_mean_and_band() -> None:
    result = made_up({"single": None, "multi": None})
    for name, axis in panels(plotting.figure1(result)).items():
        lines = solid_lines(axis)
        assert set(lines) == set(NAMES.values())
        for modality, band in zip(MODALITIES, axis.collections, strict=True):
            values = curves(result, modality, name)
            mean, sd = values.mean(0), values.std(0, ddof=1)
            np.testing.assert_array_equal(lines[NAMES[modality]][0], np.arange(EPOCHS + 1))
            np.testing.assert_allclose(lines[NAMES[modality]][1], mean, rtol=1e-12)
            x, low, high = edges(band)
            np.testing.assert_array_equal(x, np.arange(EPOCHS + 1))
            np.testing.assert_allclose(low, mean - sd, rtol=1e-12)
            np.testing.assert_allclose(high, mean + sd, rtol=1e-12)
            bottom, top = axis.get_ylim()
            assert bottom < low.min()
            assert high.max() < top
        assert not dashed_lines(axis)
        assert axis.get_xlim() == (0, EPOCHS)


def test_a_modality_has_one_colour_everywhere() -> None:
    figure = plotting.figure1(made_up({"single": 10.0, "multi": 20.0}))
    for axis in figure.axes:
        by_label = {str(line.get_label()): line.get_color() for line in axis.get_lines()}
        colours = {m: by_label[NAMES[m]] for m in MODALITIES}
        assert colours["single"] != colours["multi"]
        by_label = {label: c for label, c in by_label.items() if "modal" in label}
        for label, colour in by_label.items():
            assert colour == colours["single" if "single" in label else "multi"], label
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["single-modal", "multi-modal"]


def test_axes_are_at_least_the_papers() -> None:
    printed = {"loss": (0, 8), "ood_accuracy": (0.5, 1), "signal": (0, 1), "noise": (0, 3)}
    flat = [Run(CFG, *(torch.full((EPOCHS + 1,), 0.7) for _ in PAPER))]
    result = Figure1(CFG, (0,), dict.fromkeys(MODALITIES, flat), {"single": None, "multi": None})
    for name, axis in panels(plotting.figure1(result)).items():
        bottom, top = axis.get_ylim()
        low, high = printed[name]
        assert low - 0.1 * (high - low) < bottom <= low
        assert high <= top < high + 0.1 * (high - low)


T1 = [
    ({"single": 34.7, "multi": 27.0}, [34.7, 27.0], "both"),
    ({"single": 40.5, "multi": 27.0}, [27.0], "single_after_the_end"),
    ({"single": None, "multi": None}, [], "not_stated"),
    ({"single": float("inf"), "multi": 0.0}, [0.0], "never"),
]


@pytest.mark.parametrize(("t1", "shown"), [t[:2] for t in T1], ids=[t[2] for t in T1])
def test_t1_is_marked_where_something_grows(t1: dict, shown: list[float]) -> None:
    for name, axis in panels(plotting.figure1(made_up(t1))).items():
        assert dashed_lines(axis) == (shown if name in ("signal", "noise") else []), name


def test_a_seed_that_diverged_leaves_a_gap() -> None:
    result = made_up({"single": None, "multi": None})
    for name in PAPER:
        getattr(result.runs["single"][1], name)[30:] = torch.nan
    figure = plotting.figure1(result)
    for axis in figure.axes:
        lines = solid_lines(axis)
        assert lines["single-modal"].shape == (2, 30)
        assert lines["multi-modal"].shape == (2, EPOCHS + 1)
        assert np.isfinite(axis.get_ylim()).all()


@pytest.mark.parametrize("seeds", [1, 2])
def test_nothing_evaluated_and_one_seed(seeds: int, tmp_path: Path) -> None:
    result = made_up({"single": 10.0, "multi": 20.0}, seeds)
    for run in (*result.runs["single"], *result.runs["multi"]):
        run.ood_accuracy[:] = torch.nan
    figure = plotting.figure1(result)
    assert all(line.shape == (2, 0) for line in solid_lines(figure.axes[1]).values())
    assert plotting.save(figure, tmp_path / "a.pdf").stat().st_size > 0


def test_curves_of_a_run_skip_what_was_not_evaluated() -> None:
    run = made_up({"single": None, "multi": None}).runs["multi"][0]
    run.ood_accuracy[torch.arange(EPOCHS + 1) % 10 != 0] = torch.nan
    for name, axis in panels(plotting.run_curves(run)).items():
        line = axis.get_lines()[0]
        assert line.get_marker() == ("s" if name == "ood_accuracy" else "None")
        x = np.arange(0, EPOCHS + 1, 10 if name == "ood_accuracy" else 1)
        np.testing.assert_array_equal(line.get_xdata(), x)
        np.testing.assert_array_equal(line.get_ydata(), getattr(run, name).double().numpy()[x])
        assert not axis.texts


def test_two_evaluations_are_two_points_and_no_ramp() -> None:
    run = made_up({"single": None, "multi": None}).runs["single"][0]
    run.ood_accuracy[1:-1] = torch.nan
    line = panels(plotting.run_curves(run))["ood_accuracy"].get_lines()[0]
    assert line.get_linestyle() == "None"
    assert line.get_marker() == "o"
    assert len(line.get_xdata()) == 2


def test_modalities_differ_by_more_than_colour() -> None:
    figure = plotting.figure1(made_up({"single": 10.0, "multi": 20.0}))
    for axis in figure.axes:
        dashes = {str(x.get_label()): x._dash_pattern for x in axis.get_lines()}
        assert dashes["single-modal"] != dashes["multi-modal"]


def test_captions_say_what_was_fixed_and_accuracy_has_chance() -> None:
    figure = plotting.figure1(made_up({"single": 10.0, "multi": 20.0}))
    told = figure.get_supxlabel()
    for part in ("3 seeds", "$n$ = 100", "$d$ = 2000", r"$\sigma_0$ = 0.001", r"$\tau$ = 0.02"):
        assert part in told
    chance = [x for x in figure.axes[1].get_lines() if x.get_linestyle() == ":"]
    assert [set(x.get_ydata()) for x in chance] == [{0.5}]


def test_a_run_of_a_variant_says_so() -> None:
    cfg = CFG.replace(
        modality="multi", negatives="all", similarity="cosine", eta_tau=0.01, classes=10
    )
    run = Run(cfg, *(torch.rand(EPOCHS + 1) for _ in PAPER), tau=torch.rand(EPOCHS + 1))
    figure = plotting.run_curves(run)
    told = figure.get_supxlabel()
    for part in ("negatives = all", "similarity = cosine", r"$\eta_\tau$ = 0.01", "$K$ = 10"):
        assert part in told
    (chance,) = [x for x in figure.axes[1].get_lines() if x.get_linestyle() == ":"]
    assert set(chance.get_ydata()) == {0.1}
    assert figure.axes[4].get_title() == r"Temperature $\tau$"
    np.testing.assert_array_equal(figure.axes[4].get_lines()[0].get_ydata(), run.tau.numpy())


def test_a_single_modal_run_has_no_other_modality_in_its_caption() -> None:
    runs = made_up({"single": None, "multi": None}).runs
    assert r"\tilde{\mu}" not in plotting.run_curves(runs["single"][0]).get_supxlabel()
    assert r"\tilde{\mu}" in plotting.run_curves(runs["multi"][0]).get_supxlabel()


def test_curves_of_a_run_without_an_evaluation(tmp_path: Path) -> None:
    run = made_up({"single": None, "multi": None}).runs["single"][0]
    run.ood_accuracy[:] = torch.nan
    figure = plotting.run_curves(run)
    for name, axis in panels(figure).items():
        said = [text.get_text() for text in axis.texts]
        assert said == (["not evaluated"] if name == "ood_accuracy" else [])
    assert plotting.save(figure, tmp_path / "run.pdf").stat().st_size > 0


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_equal_runs_give_equal_files(suffix: str, tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        figure = plotting.figure1(made_up({"single": 10.0, "multi": 20.0}))
        files.append(plotting.save(figure, tmp_path / f"{name}.{suffix}"))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"%PDF")
    assert b"CreationDate" not in files[0].read_bytes()


@pytest.mark.parametrize("canvas", ["FigureCanvasAgg", "FigureCanvasPdf"])
def test_a_picture_is_written_whole_or_not_at_all(canvas: str, tmp_path: Path, monkeypatch) -> None:
    def break_off(self, path: Path, **_) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(getattr(plotting, canvas), "print_figure", break_off)
    file = tmp_path / ("a.pdf" if canvas.endswith("Pdf") else "a.png")
    file.write_bytes(b"before")
    with pytest.raises(OutputError, match="no space left"):
        plotting.save(Figure(), file)
    assert file.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_table_1_prints_our_values_away_from_the_papers_lines() -> None:
    found = json.loads((ROOT / "bench/results/table1.json").read_text())
    figure = Figure(figsize=(11, 3), layout="constrained")
    table1._bars(figure.subfigures(1, 1), found)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert [axis.get_title() for axis in figure.axes] == [p.title for p in table1.PANELS]
    for axis in figure.axes:
        marks = [
            line for line in axis.get_lines() if line.get_linewidth() == 2 and len(line.get_xdata())
        ]
        assert len(marks) == 4
        for mark in marks:
            (x0, y), (x1, _) = axis.transData.transform(np.array(mark.get_data()).T)
            for text in axis.texts:
                box = text.get_window_extent()
                beside = box.x1 < min(x0, x1) or max(x0, x1) < box.x0
                assert beside or not box.y0 < y < box.y1, text.get_text()
    ten, two = figure.axes
    heights = {round(bar.get_height(), 6) for bar in two.patches}
    assert round(found["single"]["probe_few_epochs"]["rev_0_vs_1"]["mean"], 6) in heights
    assert round(found["colour_only"]["sampled"]["rev_0_vs_1"]["mean"], 6) in heights
    assert round(found["single"]["probe"]["rev"]["mean"], 6) in {
        round(bar.get_height(), 6) for bar in ten.patches
    }
    names = [text.get_text() for text in two.get_legend().get_texts()]
    assert names.index("single-modal") < names.index("multi-modal")
    assert "colour alone, no network" in names

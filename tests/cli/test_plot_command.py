"""`mmcl plot` on a small sweep: the numbers in the picture are those of the store."""

import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmcl_fast import TrainConfig, sweep
from mmcl_fast.cli.command_line import run as mmcl
from mmcl_fast.plotting import curves, heat, legend, style
from mmcl_fast.sweep.store.conditions import KEYS

EPOCHS = 4
BASE = TrainConfig(n=10, d=30, n_test=20, epochs=EPOCHS, data="reduced")
MS, RATIOS, SEEDS = (2, 3), (0.01, 0.5, 2.0), 3
TITLES = {"single": "single-modal", "multi": "multi-modal"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plot") / "store"
    grid = {"modality": ["both"], "m": list(MS), "n_snr2": list(RATIOS)}
    sweep.run_sweep(
        sweep.make_plan(BASE, grid=grid, seeds=SEEDS), out, policy=sweep.Policy(workers=1)
    )
    return out


@pytest.fixture
def drawn(monkeypatch):
    """The figure that a command saves."""
    kept = []
    save = curves.save

    def keep(figure, path, **more):
        kept.append(figure)
        return save(figure, path, **more)

    monkeypatch.setattr(curves, "save", keep)
    return kept


def rows_of(store: Path, value: str, **conditions) -> np.ndarray:
    """Values by the plain way: every row, compared by Python."""
    found = []
    for row in sweep.load(store).to_pylist():
        words = row["modality"] == conditions.get("modality", row["modality"])
        numbers = {k: v for k, v in conditions.items() if k != "modality"}
        if words and all(np.isclose(row[k], v) for k, v in numbers.items()):
            found.append(row[value])
    return np.array(found)


def band(axis, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the k-th band, by x."""
    (path,) = axis.collections[k].get_paths()
    x = sorted(set(path.vertices[:, 0]))
    columns = [path.vertices[path.vertices[:, 0] == at, 1] for at in x]
    return np.array([c.min() for c in columns]), np.array([c.max() for c in columns])


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_curves(store: Path, tmp_path: Path, drawn, suffix: str, capsys) -> None:
    out = tmp_path / f"new/picture{suffix}"
    flags = ["--where", "m=2", "--where", "n_snr2=0.5"]
    assert mmcl(["plot", str(store), *flags, "--out", str(out)]) == 0
    assert out.stat().st_size > 5000
    (figure,) = drawn
    assert [axis.get_title() for axis in figure.axes] == [t for t, _ in curves.PANELS.values()]
    for axis, name in zip(figure.axes, curves.PANELS, strict=True):
        lines = {line.get_label(): line for line in axis.get_lines()}
        for k, modality in enumerate(("single", "multi")):
            mine = rows_of(store, name, m=2, n_snr2=0.5, modality=modality)
            assert mine.shape == (SEEDS, EPOCHS + 1)
            line = lines[TITLES[modality]]
            assert line.get_color() == curves.COLOURS[modality]
            np.testing.assert_allclose(line.get_ydata(), mine.mean(0), rtol=1e-6)
            low, high = band(axis, k)
            np.testing.assert_allclose((high - low) / 2, mine.std(0, ddof=1), rtol=1e-5, atol=1e-7)
    assert "mean ± 1 s.d. over 3 seeds" in figure.get_supxlabel()
    assert f"wrote {out}: 6 runs in 2 points" in capsys.readouterr().out


def test_one_curve_by_another_hue(store: Path, tmp_path: Path, drawn) -> None:
    flags = ["--where", "modality=multi", "--where", "m=3", "--hue", "n_snr2", "--value", "signal"]
    assert mmcl(["plot", str(store), *flags, "--out", str(tmp_path / "x.png")]) == 0
    (axis,) = drawn[0].axes
    assert axis.get_title() == "Signal learning"
    labels = [line.get_label() for line in axis.get_lines()]
    assert [x for x in labels if not x.startswith("_")] == [
        rf"$n\,\mathrm{{SNR}}^2$ = {v:g}" for v in RATIOS
    ]
    assert len({tuple(line.get_color()) for line in axis.get_lines()}) == 3


def test_lines(store: Path, tmp_path: Path, drawn) -> None:
    flags = ["--kind", "lines", "--x", "n_snr2", "--where", "m=2"]
    assert mmcl(["plot", str(store), *flags, "--out", str(tmp_path / "x.png")]) == 0
    (axis,) = drawn[0].axes
    assert axis.get_xscale() == "log"
    assert axis.get_ylabel() == "OOD test accuracy, last epoch"
    assert axis.get_xlabel() == r"$n\,\mathrm{SNR}^2$"
    assert "$m$ = 2" in drawn[0].get_supxlabel()
    lines = {line.get_label(): line for line in axis.get_lines()}
    for k, modality in enumerate(("single", "multi")):
        name = "final_ood_accuracy"
        mine = [rows_of(store, name, m=2, n_snr2=v, modality=modality) for v in RATIOS]
        line = lines[TITLES[modality]]
        np.testing.assert_allclose(line.get_xdata(), RATIOS)
        np.testing.assert_allclose(line.get_ydata(), np.mean(mine, 1), rtol=1e-6)
        low, high = band(axis, k)
        np.testing.assert_allclose((high - low) / 2, np.std(mine, 1, ddof=1), rtol=1e-5, atol=1e-7)


def test_a_value_is_named_by_six_digits(tmp_path: Path, drawn, capsys) -> None:
    out = tmp_path / "store"
    plan = sweep.make_plan(BASE.replace(m=2), grid={"n_snr2": [1 / 3, 2 / 3, 0.33334]})
    sweep.run_sweep(plan, out, policy=sweep.Policy(workers=1))
    flags = ["--kind", "lines", "--x", "n_snr2", "--out", str(tmp_path / "x.png")]
    assert mmcl(["plot", str(out), *flags, "--where", "n_snr2=0.3333"]) == 2
    assert "in the store (0.333333, 0.33334, 0.666667), got 0.3333" in capsys.readouterr().err
    assert mmcl(["plot", str(out), *flags, "--where", "n_snr2=0.333333"]) == 0
    (line,) = [x for x in drawn[0].axes[0].get_lines() if x.get_label() == "single-modal"]
    np.testing.assert_allclose(line.get_xdata(), [1 / 3])


def test_columns_rows_and_words(store: Path, tmp_path: Path, drawn, capsys) -> None:
    flags = ["--value", "loss", "--col", "n_snr2", "--row", "modality", "--hue", "m"]
    flags += [
        "--where",
        "n_snr2=0.01,2",
        "--size",
        "6,4",
        "--dpi",
        "50",
        "--title",
        r"Losses of $\$1$",
    ]
    flags += ["--xlabel", "epoch for $1", "--ylabel", "$L_t$\nlosses"]
    out = tmp_path / "x.svg"
    assert mmcl(["plot", str(store), *flags, "--data", "--out", str(out)]) == 0
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[0].split(",")[-1] == '"high"'
    assert len(lines) == 1 + 8 * (EPOCHS + 1)
    assert "24 runs in 8 points" in capsys.readouterr().out
    assert out.read_text().lstrip().startswith("<?xml")
    (figure,) = drawn
    assert len(figure.axes) == 4
    assert figure.get_suptitle() == r"Losses of $\$1$"
    assert figure.get_size_inches().tolist() == [6.0, 4.0]


def test_heat(store: Path, tmp_path: Path, drawn) -> None:
    flags = ["--kind", "heatmap", "--x", "m", "--y", "n_snr2", "--value", "final_noise"]
    assert mmcl(["plot", str(store), *flags, "--out", str(tmp_path / "x.png")]) == 0
    figure = drawn[0]
    assert [axis.get_title() for axis in figure.axes[:2]] == ["single-modal", "multi-modal"]
    limits = set()
    for axis, modality in zip(figure.axes[:2], ("single", "multi"), strict=True):
        mesh = axis.collections[0]
        limits.add(mesh.get_clim())
        grid = np.asarray(mesh.get_array()).reshape(len(RATIOS), len(MS))
        for i, ratio in enumerate(RATIOS):
            for j, m in enumerate(MS):
                mine = rows_of(store, "final_noise", m=m, n_snr2=ratio, modality=modality)
                assert grid[i, j] == pytest.approx(mine.mean(), rel=1e-6)
    assert len(limits) == 1, "one scale of colours"
    assert "mean over 3 seeds" in figure.get_supxlabel()


MISTAKES = [
    (["--kind", "lines"], "x: expected a setting with --kind lines, got none"),
    (["--kind", "heatmap", "--x", "m"], "y: expected a setting with --kind heatmap, got none"),
    (["--x", "m"], "x: expected none with --kind curves, got m"),
    (["--kind", "lines", "--x", "mm"], "mm: unknown column; did you mean m?"),
    (["--kind", "lines", "--x", "n_snr"], "n_snr: unknown column; did you mean n_snr2?"),
    (["--kind", "lines", "--x", "m", "--value", "final_los"], "did you mean final_loss?"),
    (["--value", "accuracy"], "accuracy: unknown column; did you mean ood_accuracy?"),
    (["--hue", "modalty"], "modalty: unknown column; did you mean modality?"),
    (
        ["--kind", "lines", "--x", "m", "--hue", "m"],
        "hue: expected another setting than --x, got m",
    ),
    (["--kind", "lines", "--x", "modality", "--hue", "m"], "x: expected a setting with numbers"),
    (
        ["--kind", "lines", "--x", "negatives_per_sample"],
        "x: expected negatives_per_sample to be a",
    ),
    ([], "m: expected one value in each point of the picture"),
    (["--where", "m"], "where: expected name=value or name=value,value, got 'm'"),
    (["--where", "m=7"], "where: expected a value of m in the store (2, 3), got 7"),
    (["--where", "m=x"], "where: expected a number for m, got 'x'"),
    (["--where", "modality=both"], "where: expected a value of modality in the store (multi, sin"),
    (["--size", "6"], "size: expected WIDTH,HEIGHT in inches, got '6'"),
    (["--dpi", "5"], "dpi: expected a number in 10 .. 2400, got 5"),
    (["--style", "none.mplstyle"], "style: expected a matplotlib style file, got"),
    (["--title", r"of $\foo{$"], r"title: expected text with formulas that matplotlib knows"),
    (["--xlabel", "a\n$x^$"], r"xlabel: expected text with formulas that matplotlib knows"),
    (["--ylabel", r"$\frac{1}$"], r"ylabel: expected text with formulas that matplotlib knows"),
    (["--kind", "heat"], "--kind: expected one of curves, lines, heatmap, got 'heat' (did you"),
    (["--out", "x.jpg"], "out: expected a file ending in .png, .pdf, .svg, got 'x.jpg'"),
]


@pytest.mark.parametrize(("flags", "message"), MISTAKES, ids=lambda x: str(x)[:40])
def test_mistakes_are_one_line_and_leave_nothing(
    store: Path, flags: list[str], message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in flags else ["--out", "x.png"]
    # What is tested is not hidden behind the settings that vary.
    fixed = ["--where", "n_snr2=0.5"] if not {"--kind", "--x"} & set(flags) else []
    assert mmcl(["plot", str(store), *fixed, *flags, *out]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mmcl: error: ")
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_no_store(tmp_path: Path, capsys) -> None:
    assert mmcl(["plot", str(tmp_path / "none"), "--out", str(tmp_path / "x.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_never_evaluated(tmp_path: Path, capsys) -> None:
    out = tmp_path / "store"
    plan = sweep.make_plan(BASE.replace(m=2, evaluate_every=0), grid={"modality": ["both"]})
    sweep.run_sweep(plan, out, policy=sweep.Policy(workers=1))
    picture = tmp_path / "x.png"
    flags = ["--kind", "lines", "--x", "m"]
    assert mmcl(["plot", str(out), *flags, "--out", str(picture)]) == 2
    assert "final_ood_accuracy: expected a value somewhere" in capsys.readouterr().err
    assert mmcl(["plot", str(out), *flags, "--value", "final_loss", "--out", str(picture)]) == 0


def test_diverged_runs_are_said_and_hatched(tmp_path: Path, drawn, capsys) -> None:
    out = tmp_path / "store"
    # q = 4 with a huge step overflows at once; a small one does not.
    base = BASE.replace(q=4, m=2, sigma_0=1.0)
    plan = sweep.make_plan(base, grid={"eta": [1e-6, 1e10], "n_snr2": [0.5, 1.0]}, seeds=2)
    sweep.run_sweep(plan, out, policy=sweep.Policy(workers=1))
    flags = ["--kind", "heatmap", "--x", "eta", "--y", "n_snr2", "--value", "final_loss"]
    assert mmcl(["plot", str(out), *flags, "--out", str(tmp_path / "x.png")]) == 0
    assert "mmcl: 4 diverged or failed runs are left out" in capsys.readouterr().err
    told = " ".join(drawn[0].get_supxlabel().split())
    assert "0 to 2 seeds; 4 diverged or failed runs left out; hatched: no finished run" in told
    grid = drawn[0].axes[0].collections[0].get_array()
    assert np.ma.getmaskarray(grid).reshape(2, 2).tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize(
    ("centres", "expected"),
    [
        ([1.0, 2.0, 3.0], [0.5, 1.5, 2.5, 3.5]),
        ([1.0, 2.0, 4.0], [2**-0.5, 2**0.5, 2**1.5, 2**2.5]),
        ([1.0, 10.0, 100.0], [10**-0.5, 10**0.5, 10**1.5, 10**2.5]),
        ([5.0], [4.5, 5.5]),
        ([1.0, 100.0], [-48.5, 50.5, 149.5]),
    ],
)
def test_edges_are_half_way(centres: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(heat.edges(centres), expected)


def test_logarithmic_axes() -> None:
    assert style.is_logarithmic([1, 5, 20])
    assert style.is_logarithmic([16, 64, 256])
    assert not style.is_logarithmic([1, 5, 19])
    assert not style.is_logarithmic([0.1, 0.2, 0.3])
    assert not style.is_logarithmic([0, 5, 200])


@pytest.mark.parametrize("decades", [1.0, 2.0, 3.0, 5.0, 8.0])
def test_ticks_do_not_run_into_one_another(decades: float) -> None:
    figure = Figure(figsize=(3.6, 3.5))
    axis = figure.subplots()
    values = np.geomspace(0.02, 0.02 * 10**decades, 12).tolist()
    axis.set_xlim(values[0], values[-1])
    style.scale_axis(axis, "x", values)
    FigureCanvasAgg(figure).draw()
    boxes = [t.get_window_extent() for t in axis.get_xticklabels() if t.get_text()]
    inside = [b for b in boxes if axis.bbox.x0 - 1 <= (b.x0 + b.x1) / 2 <= axis.bbox.x1 + 1]
    assert len(inside) >= 3
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(sorted(inside, key=lambda b: b.x0)))


def test_few_values_are_their_own_ticks() -> None:
    axis = Figure().subplots()
    style.scale_axis(axis, "x", [16, 64, 256])
    assert axis.get_xticks().tolist() == [16, 64, 256]


def test_colours_are_told_apart() -> None:
    found = legend.hue_looks("modality", ["single"])
    assert {m: found[m]["color"] for m in found} == style.COLOURS
    for hue, values in (("augment", ["fixed", "per_epoch"]), ("m", [1, 2, 3, 4])):
        looks = legend.hue_looks(hue, values).values()
        for what in ("color", "ls", "marker"):
            assert len({str(one[what]) for one in looks}) == len(values)
    assert mpl.colormaps[style.MAP] is not None


def test_no_setting_is_missing_from_the_choices() -> None:
    assert {"n", "m", "d", "q", "snr", "n_snr2", "c_mu", "noise_rate", "modality"} <= set(KEYS)
    assert "seed" not in KEYS


def test_own_metrics_are_drawn_as_curves_are(tmp_path: Path, drawn, capsys) -> None:
    store, picture = tmp_path / "store", tmp_path / "margin.png"
    plan = sweep.make_plan(
        BASE, grid={"m": list(MS)}, seeds=2, metrics={"margin": "mmcl_fast.metrics:margin"}
    )
    sweep.run_sweep(plan, store, policy=sweep.Policy(workers=1))
    flags = ["--hue", "m", "--value", "margin", "--out", str(picture)]
    assert mmcl(["plot", str(store), *flags]) == 0
    (axis,) = drawn[-1].axes
    kept = sweep.load(store, ["m", "margin"]).to_pylist()
    for line, m in zip(axis.lines, MS, strict=False):
        mean = np.mean([row["margin"] for row in kept if row["m"] == m], axis=0)
        np.testing.assert_allclose(line.get_ydata(), mean, rtol=1e-12)
    flags = ["--kind", "lines", "--x", "m", "--out", str(picture), "--value"]
    assert mmcl(["plot", str(store), *flags, "final_margin"]) == 0
    assert drawn[-1].axes[0].get_ylabel() == "margin, last epoch"
    capsys.readouterr()
    assert mmcl(["plot", str(store), *flags, "final_margi"]) == 2
    assert "final_margi: unknown column; did you mean final_margin?" in capsys.readouterr().err

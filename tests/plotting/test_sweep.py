"""Pictures of a sweep in rows and columns: each panel has its own numbers, bands and lines."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from mmcl_fast import ConfigError, TrainConfig, plotting, sweep
from mmcl_fast.experiments.borders import log_t1_ratio, theory_point
from mmcl_fast.plotting import Picture, draw
from mmcl_fast.plotting.heat import LINES, draw_border

NAMES = {"single": "single-modal", "multi": "multi-modal"}


def rows_of(store: Path, value: str, **at) -> np.ndarray:
    """Values by the plain way: every row, compared by Python."""
    return np.array(
        [
            row[value]
            for row in sweep.load(store).to_pylist()
            if all(
                row[k] == v if isinstance(v, str) else np.isclose(row[k], v) for k, v in at.items()
            )
        ]
    )


def edges_of(band) -> tuple[np.ndarray, np.ndarray]:
    (path,) = band.get_paths()
    columns = [path.vertices[path.vertices[:, 0] == x, 1] for x in sorted({*path.vertices[:, 0]})]
    return np.array([c.min() for c in columns]), np.array([c.max() for c in columns])


def test_six_panels_of_lines(store: Path) -> None:
    picture = Picture(
        kind="lines", x="m", col="snr", row="modality", hue="eta", value="final_signal"
    )
    drawn = draw(store, picture)
    assert (drawn.runs, drawn.points, drawn.left_out) == (108, 36, 0)
    assert len(drawn.figure.axes) == 6
    for k, axis in enumerate(drawn.figure.axes):
        modality, snr = ("single", "multi")[k // 3], (0.01, 0.1, 1.0)[k % 3]
        assert axis.get_title() == f"{NAMES[modality]}, SNR = {snr:g}"
        lines = {line.get_label(): line for line in axis.get_lines()}
        for j, eta in enumerate((0.01, 0.1)):
            at = {"modality": modality, "snr": snr, "eta": eta}
            mine = np.array([rows_of(store, "final_signal", m=m, **at) for m in (2, 3, 5)])
            line = lines[rf"$\eta$ = {eta:g}"]
            np.testing.assert_allclose(line.get_xdata(), [2, 3, 5])
            np.testing.assert_allclose(line.get_ydata(), mine.mean(1), rtol=1e-6)
            low, high = edges_of(axis.collections[j])
            sd = mine.std(1, ddof=1)
            np.testing.assert_allclose(low, mine.mean(1) - sd, rtol=1e-5, atol=1e-9)
            np.testing.assert_allclose(high, mine.mean(1) + sd, rtol=1e-5, atol=1e-9)
    assert len(drawn.figure.legends) == 1


@pytest.mark.parametrize("band", ["se", "quantiles", "none"])
def test_bands(store: Path, band) -> None:
    where = ("m=2", "snr=1", "eta=0.1", "modality=multi")
    drawn = draw(store, Picture(value="noise", where=where, band=band))
    (axis,) = drawn.figure.axes
    mine = rows_of(store, "noise", m=2, snr=1.0, eta=0.1, modality="multi")
    shown = [line for line in axis.get_lines() if line.get_label() == "multi-modal"]
    told = drawn.figure.get_supxlabel()
    if band == "none":
        assert not axis.collections
        np.testing.assert_allclose(shown[0].get_ydata(), mine.mean(0), rtol=1e-6)
        assert told.startswith("mean over 3 seeds")
        return
    low, high = edges_of(axis.collections[0])
    if band == "se":
        error = mine.std(0, ddof=1) / np.sqrt(3)
        wanted = mine.mean(0) - error, mine.mean(0), mine.mean(0) + error
        assert "mean ± 1 standard error over 3 seeds" in told
    else:
        wanted = np.quantile(mine, [0.25, 0.5, 0.75], axis=0)
        assert "median, 25 % to 75 %, over 3 seeds" in told
    np.testing.assert_allclose(low, wanted[0], rtol=1e-6)
    np.testing.assert_allclose(shown[0].get_ydata(), wanted[1], rtol=1e-6)
    np.testing.assert_allclose(high, wanted[2], rtol=1e-6)


def test_heat_maps_in_rows_and_columns(store: Path) -> None:
    picture = Picture(kind="heatmap", x="m", y="snr", row="eta", value="final_loss")
    drawn = draw(store, picture)
    panels = [axis for axis in drawn.figure.axes if axis.get_title()]
    assert len(panels) == 4
    for k, axis in enumerate(panels):
        eta, modality = (0.01, 0.1)[k // 2], ("single", "multi")[k % 2]
        assert axis.get_title() == rf"$\eta$ = {eta:g}, {NAMES[modality]}"
        grid = np.asarray(axis.collections[0].get_array()).reshape(3, 3)
        for i, snr in enumerate((0.01, 0.1, 1.0)):
            for j, m in enumerate((2, 3, 5)):
                mine = rows_of(store, "final_loss", m=m, snr=snr, eta=eta, modality=modality)
                assert grid[i, j] == pytest.approx(mine.mean(), rel=1e-6)


def test_several_values_of_a_condition_make_columns(store: Path) -> None:
    drawn = draw(store, Picture(value="loss", col="snr", where=("snr=0.01,1", "m=2", "eta=0.1")))
    assert [axis.get_title() for axis in drawn.figure.axes] == ["SNR = 0.01", "SNR = 1"]


def test_words_size_and_scales(store: Path) -> None:
    picture = Picture(
        kind="lines",
        x="m",
        where=("snr=1", "eta=0.1"),
        value="final_loss",
        title="Widths",
        xlabel="neurons",
        ylabel="loss, nats",
        size=(3.0, 2.0),
        log="xy",
    )
    figure = draw(store, picture).figure
    (axis,) = figure.axes
    assert figure.get_suptitle() == "Widths"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("neurons", "loss, nats")
    assert figure.get_size_inches().tolist() == [3.0, 2.0]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")


def test_an_own_style_is_applied_to_this_picture_alone(store: Path, tmp_path: Path) -> None:
    style = tmp_path / "own.mplstyle"
    style.write_text("axes.grid: False\nlines.linewidth: 7\naxes.facecolor: yellow\n")
    before = mpl.rcParams["axes.facecolor"]
    picture = Picture(kind="lines", x="m", where=("snr=1", "eta=0.1"), style=style)
    (axis,) = draw(store, picture).figure.axes
    assert axis.get_facecolor() == (1.0, 1.0, 0.0, 1.0)
    assert mpl.rcParams["axes.facecolor"] == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [("axes.gridd: True\n", "Bad key"), ("axes.grid: 7x\n", "Cannot convert"), (None, "No such")],
)
def test_a_style_that_is_none(text: str | None, reason: str, tmp_path: Path, caplog) -> None:
    style = tmp_path / "own.mplstyle"
    if text is not None:
        style.write_text(text)
    with pytest.raises(ConfigError, match=f"style: expected a matplotlib style file.*{reason}"):
        Picture(style=style)
    assert not caplog.records, "said once, as an error"


def test_the_theorys_border_is_where_its_number_is_zero(store: Path) -> None:
    picture = Picture(kind="heatmap", x="m", y="snr", theory=True, where=("eta=0.1",))
    figure = draw(store, picture).figure
    (text,) = figure.legends[0].get_texts()
    assert "$T_1$" in text.get_text(), "the assumption fails everywhere: no border of it"
    cfg = TrainConfig(n=10, d=30, modality="single", eta=0.1)
    contour = figure.axes[0].collections[1]
    points = np.concatenate([path.vertices for path in contour.get_paths()])
    assert len(points) > 2
    for m, snr in points[:: len(points) // 3]:
        near = cfg.replace(m=round(m), mu_norm=snr * np.sqrt(30.0), mu_b_norm=15.0)
        point = theory_point(near)
        assert point is not None
        assert abs(log_t1_ratio(point, "single")) < 0.5
    # On either side of the line the number has another sign.
    signs = []
    for snr in (0.1, 1.0):
        point = theory_point(cfg.replace(m=3, mu_norm=snr * np.sqrt(30.0)))
        assert point is not None
        signs.append(log_t1_ratio(point, "single") > 0)
    assert signs == [False, True]


def test_no_border_is_said(store: Path) -> None:
    where = ("eta=0.1", "snr=0.01,0.1", "modality=single")
    figure = draw(store, Picture(kind="heatmap", x="m", y="snr", theory=True, where=where)).figure
    (text,) = figure.legends[0].get_texts()
    assert text.get_text() == "no border of the theory on these maps"


def test_a_border_is_interpolated_in_logarithms() -> None:
    axis = Figure().subplots()
    numbers = np.log(np.array([[1.0, 10.0, 100.0]] * 2) / 5.0)
    assert draw_border(axis, ([1.0, 10.0, 100.0], [1.0, 2.0]), numbers, LINES[0])
    (path,) = [p for p in axis.collections[0].get_paths() if len(p.vertices)]
    np.testing.assert_allclose(path.vertices[:, 0], 5.0, rtol=0.02)
    assert not draw_border(axis, ([1.0, 2.0], [1.0, 2.0]), np.ones((2, 2)), LINES[0])


def test_the_theory_says_nothing_of_other_models(tmp_path: Path) -> None:
    base = TrainConfig(n=10, d=30, n_test=20, epochs=1, data="reduced", q=2)
    plan = sweep.make_plan(base, grid={"m": [2, 3], "snr": [0.1, 0.2]})
    sweep.run_sweep(plan, tmp_path / "s", policy=sweep.Policy(workers=1))
    with pytest.raises(ConfigError, match=r"theory: expected settings of which the theory speaks"):
        draw(tmp_path / "s", Picture(kind="heatmap", x="m", y="snr", theory=True))


def test_a_sweep_of_a_variant_says_so_and_has_its_own_chance(tmp_path: Path) -> None:
    base = TrainConfig(n=12, d=40, n_test=20, m=2, epochs=1, data="reduced", negatives="all")
    plan = sweep.make_plan(base, grid={"classes": [2, 5], "spurious_norm": [0.0, 3.0]})
    out = tmp_path / "s"
    sweep.run_sweep(plan, out, policy=sweep.Policy(workers=1))
    columns = draw(out, Picture(kind="lines", x="spurious_norm", col="classes")).figure
    assert "negatives = all" in columns.get_supxlabel()
    assert columns.get_supxlabel().startswith("1 seed; dotted: chance")
    for axis, chance in zip(columns.axes, (1 / 2, 1 / 5), strict=True):
        (line,) = [x for x in axis.get_lines() if x.get_linestyle() == ":"]
        assert set(line.get_ydata()) == {chance}
    over_classes = draw(out, Picture(kind="lines", x="classes", where=("spurious_norm=0",))).figure
    assert "dotted" not in over_classes.get_supxlabel()
    for where, low in ((["classes=5"], 0.0), (["classes=2", "spurious_norm=0"], 0.5)):
        picture = Picture(kind="heatmap", x="spurious_norm", y="m", where=where)
        axis = draw(out, picture).figure.axes[0]
        assert axis.collections[0].get_clim() == (low, 1.0), where
        np.testing.assert_array_equal(axis.get_yticks(), [2])


def test_an_error_names_the_axis_that_was_swept(tmp_path: Path) -> None:
    base = TrainConfig(n=10, d=30, n_test=20, epochs=1, data="reduced")
    # |mu|, which the SNR sets, takes four values.
    plan = sweep.make_plan(base, grid={"d": [30, 40], "snr": [0.25, 0.5], "m": [2, 3]})
    sweep.run_sweep(plan, tmp_path / "s", policy=sweep.Policy(workers=1))
    with pytest.raises(ConfigError, match=r"^snr: expected one value .*--where snr=0\.25, or"):
        draw(tmp_path / "s", Picture(kind="lines", x="m", col="d"))


def test_the_numbers_of_a_picture(store: Path) -> None:
    picture = Picture(kind="lines", x="m", col="snr", hue="eta", where=("modality=multi",))
    table = plotting.figure_data(draw(store, picture)).to_pylist()
    assert len(table) == 18
    for row in table:
        at = {name: row[name] for name in ("m", "snr", "eta")}
        mine = rows_of(store, "final_ood_accuracy", modality="multi", **at)
        assert (row["value"], row["runs"], row["left_out"]) == ("final_ood_accuracy", 3, 0)
        assert row["mean"] == row["centre"] == pytest.approx(mine.mean())
        assert row["sd"] == pytest.approx(mine.std(ddof=1), abs=1e-12)
        assert row["high"] - row["low"] == pytest.approx(2 * row["sd"], abs=1e-12)


def test_the_numbers_of_curves_are_one_row_an_epoch(store: Path) -> None:
    where = ("m=2", "snr=1", "eta=0.1", "modality=multi")
    table = plotting.figure_data(draw(store, Picture(where=where))).to_pylist()
    assert len(table) == 4 * 5
    for row in table:
        mine = rows_of(store, row["value"], m=2, snr=1.0, eta=0.1, modality="multi")
        assert row["mean"] == pytest.approx(mine[:, row["epoch"]].mean(), rel=1e-6)


MISTAKES = [
    ({"col": "snr"}, "col: expected none with four curves side by side, got snr"),
    ({"kind": "lines", "x": "m", "row": "m"}, "row: expected another setting than --x, got m"),
    ({"kind": "lines", "x": "m", "col": "snrr"}, "snrr: unknown column; did you mean snr?"),
    ({"theory": True}, "theory: expected --kind heatmap, got curves"),
    ({"kind": "heatmap", "x": "m", "y": "n", "band": "se"}, "band: expected none with --kind heat"),
    ({"kind": "heatmap", "x": "m", "y": "n", "hue": "d", "col": "q"}, "hue: expected none with"),
    ({"kind": "heat"}, "kind: expected one of curves, lines, heatmap, got 'heat'"),
    ({"size": (0.1, 3.0)}, "size: expected width and height of 1 to 60 inches, got 0.1, 3"),
]


@pytest.mark.parametrize(("fields", "message"), MISTAKES, ids=lambda x: str(x)[:30])
def test_mistakes_are_found_before_anything_is_read(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Picture(**fields)
    assert message in str(error.value)


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_equal_pictures_are_equal_files(store: Path, tmp_path: Path, suffix: str) -> None:
    files = []
    for name in ("one", "two"):
        picture = Picture(kind="lines", x="m", where=("snr=1", "eta=0.1"))
        out = tmp_path / f"{name}{suffix}"
        plotting.save(draw(store, picture).figure, out, dpi=50)
        files.append(out.read_bytes())
    assert files[0] == files[1]
    assert len(files[0]) > 2000


def test_dpi_and_suffix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dpi: expected a number in 10 \.\. 2400, got 3"):
        plotting.save(Figure(), tmp_path / "x.png", dpi=3)
    with pytest.raises(ConfigError, match=r"out: expected a file ending in \.png, \.pdf, \.svg"):
        plotting.save(Figure(), tmp_path / "x.jpg")
    assert not list(tmp_path.iterdir())

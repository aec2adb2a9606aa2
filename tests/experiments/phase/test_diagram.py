"""Phase diagrams: each cell is the run that its place says, each line the theory's."""

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mmcl_fast import ConfigError, theory, train_many
from mmcl_fast.cli.command_line import run as mmcl
from mmcl_fast.experiments.crossing import first_crossing
from mmcl_fast.experiments.phase import diagram as phase_module
from mmcl_fast.experiments.phase.axis import Range
from mmcl_fast.experiments.phase.diagram import Map, Phase, boundary, phase_plan, run_phase
from mmcl_fast.experiments.phase.overlay import conditions, margin, overlay, window
from mmcl_fast.experiments.phase.planes import PLANES, Plane
from mmcl_fast.experiments.probe import Probe
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.plotting import curves, phase

NAMES = ("n-snr", "cmu-nsnr2", "d", "m")
MODALITIES = ("single", "multi")
SMALL = Plane(Range("n", 8, 16), Range("snr", 0.02, 0.5), Scaled(d=10**4, m=4, noise_rate=0.2))


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_has_what_its_axes_say_and_nothing_else_changes(name: str) -> None:
    plane = PLANES[name]
    xs, ys = plane.x.values(4), plane.y.values(4)
    assert len(xs) == len(ys) == 4
    for x, y in ((xs[0], ys[0]), (xs[-1], ys[1]), (xs[2], ys[-1])):
        cfg = plane.cell(x, y)
        ratio = cfg.mu_norm / (cfg.sigma_xi * math.sqrt(cfg.d))
        found = {
            "n": cfg.n,
            "d": cfg.d,
            "m": cfg.m,
            "snr": ratio,
            "n_snr2": cfg.n * ratio**2,
            "c_mu": cfg.mu_b_norm / cfg.mu_norm,
            "noise_rate": cfg.eta * cfg.sigma_xi**2 * cfg.d / (cfg.n * cfg.m * cfg.tau_value),
            "noise_start": cfg.sigma_0 * cfg.sigma_xi * math.sqrt(cfg.d),
            "nu_share": cfg.nu_norm / cfg.mu_norm,
        }
        assert found[plane.x.name] == pytest.approx(x)
        assert found[plane.y.name] == pytest.approx(y)
        base = plane.base
        for fixed in {"n", "d", "m", "c_mu", "noise_rate", "noise_start", "nu_share"} - {
            plane.x.name,
            plane.y.name,
        }:
            assert found[fixed] == pytest.approx(getattr(base, fixed)), fixed
        if "snr" not in (plane.x.name, plane.y.name):
            assert found["n_snr2"] == pytest.approx(plane.at(x, y).n_snr2)


def test_dimensions_beyond_a_million() -> None:
    assert PLANES["d"].x.values(16)[-1] == 10**9
    assert PLANES["d"].cell(1e9, 1.0).d == 10**9


def test_whole_axes_do_not_repeat() -> None:
    assert Range("n", 2, 5).values(16) == [2.0, 3.0, 4.0, 5.0]
    assert Range("snr", 1, 100).values(3) == pytest.approx([1.0, 10.0, 100.0])


def test_overlay_is_the_lemmas() -> None:
    """T1 written out here, at Figure 1's rates, and the single-modal signal with C_mu = 1."""
    plane = Plane(Range("c_mu", 1, 4), Range("n_snr2", 0.5, 2), Scaled(n=100, d=10**6))
    xs, ys = [1.5, 3.0], [0.5, 1.25]
    for modality in ("single", "multi"):
        ratios, *_ = overlay(plane, xs, ys, modality)
        for i, y in enumerate(ys):
            for j, x in enumerate(xs):
                start = math.sqrt(2000) / 1000
                noise = math.log(20 / start) / math.log(1 + 0.96 * 0.2)
                c_mu = x if modality == "multi" else 1.0
                rate = 0.48 * c_mu * y * 0.2
                signal = math.log(20 / (start * math.sqrt(y / 100))) / math.log(1 + rate)
                assert ratios[i, j] == pytest.approx(math.log(noise / signal), rel=1e-9)


def test_overlay_of_the_assumption() -> None:
    plane = Plane(Range("n", 10, 1000), Range("snr", 0.01, 1), Scaled(d=10**7))
    xs, ys = [20.0, 200.0], [0.01, 0.1, 1.0]
    _, margins, _ = overlay(plane, xs, ys, "multi")
    # n SNR^2 in 0.1 .. 10, and d >= n / (sigma_0 sigma_xi), that is n <= start sqrt(d) = 141.
    assert (margins >= 0).tolist() == [[False, False], [True, False], [False, False]]
    assert margins[0, 1] == pytest.approx(math.log(200 * 0.01**2 / 0.1))
    # At n = 20, SNR = 0.1: a factor 2 from n SNR^2 = 0.1, and 3 / 2.66 from the least C_mu.
    assert margins[1, 0] == pytest.approx(math.log(3 / 2.66))
    _, margins, _ = overlay(plane, xs, ys, "single")
    assert margins[1, 0] == pytest.approx(math.log(20 * 0.1**2 / 0.1))
    failing = [c.condition for c in conditions(plane.at(200.0, 0.1), "multi") if not c.holds]
    assert failing == ["d >= n / (sigma_0 sigma_xi)"]


def test_overlay_of_the_window() -> None:
    plane = Plane(Range("c_mu", 1, 9), Range("n_snr2", 0.5, 5))
    xs, ys = [2.0, 2.66, 8.0], [1.25, 1.7, 1.8, 3.0]
    _, _, margins = overlay(plane, xs, ys, "single")
    assert (margins >= -1e-9).tolist() == [[True] * 3, [True] * 3, [True] * 3, [False] * 3]
    assert margins[0, 0] == pytest.approx(math.log(1.8 / 1.25))
    _, _, margins = overlay(plane, xs, ys, "multi")
    inside = [[False] * 3, [False, True, True], [False, True, True], [True] * 3]
    assert (margins >= -1e-9).tolist() == inside
    assert margins[1, 0] == pytest.approx(math.log(3.4 / 4.51))
    assert margins[3, 2] == pytest.approx(math.log(3 / 1.7))
    for modality in ("single", "multi"):
        point = plane.at(3.0, 1.25)
        assert all(c.holds for c in window(point, modality)) == (modality == "single")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("modality", ["single", "multi"])
def test_the_margin_is_that_of_the_conditions(name: str, modality: str) -> None:
    plane = PLANES[name]
    inside = []
    for x in plane.x.values(5):
        for y in plane.y.values(5):
            point = plane.at(x, y)
            inside.append(margin(point, modality) >= 0)
            assert inside[-1] == all(c.holds for c in conditions(point, modality))
    assert 0 < sum(inside) < len(inside)


def test_single_modal_training_is_not_asked_for_c_mu() -> None:
    point = Scaled(c_mu=1.0)
    assert not all(c.holds for c in conditions(point, "multi"))
    assert all(c.holds for c in conditions(point, "single"))
    assert len(conditions(point, "multi")) == len(conditions(point, "single")) + 1


def test_conditions_are_those_of_the_runs() -> None:
    cfg = PLANES["n-snr"].cell(16, 0.3)
    names = ("n", "d", "m", "eta", "sigma_0", "sigma_xi", "sigma_eps", "mu_norm", "mu_b_norm")
    direct = theory.assumption_4_1(**{name: getattr(cfg, name) for name in names})
    mine = conditions(PLANES["n-snr"].at(16, 0.3), "multi")
    assert [(c.condition, c.holds) for c in mine] == [(c.condition, c.holds) for c in direct]
    for one, other in zip(mine, direct, strict=True):
        assert one.left == pytest.approx(other.left)
        assert one.right == pytest.approx(other.right)


def test_crossing_is_interpolated() -> None:
    assert first_crossing([1, 2, 4], [0.5, 0.6, 1.0], 0.7) == pytest.approx(2.5)
    assert math.isnan(first_crossing([1, 2], [0.9, 0.8], 0.7))


def test_boundary_of_each_column_in_logarithms() -> None:
    ys = [1.0, 10.0, 100.0]
    values = np.array([[0.5, 0.9, 0.5], [0.5, 0.9, 0.5], [1.0, 0.9, 0.6]])
    found = boundary(ys, values, 0.75)
    assert found[0] == pytest.approx(10**1.5)
    assert np.isnan(found[1:]).all()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory):
    """A tiny plane, computed; the plane's name is borrowed."""
    patch = pytest.MonkeyPatch()
    patch.setattr(phase_module, "PLANES", {"n-snr": SMALL})
    out = tmp_path_factory.mktemp("phase") / "store"
    first, swept = run_phase("n-snr", out, points=3, seeds=range(4, 6), epochs=30, workers=1)
    yield out, first, swept
    patch.undo()


def test_a_cell_is_the_mean_of_its_runs(small) -> None:
    _, found, swept = small
    assert swept.computed == 2 * 9 * 2
    places = list(itertools.product(range(3), range(3)))
    for modality in ("single", "multi"):
        cells = [SMALL.cell(found.xs[j], found.ys[i]) for i, j in places]
        last = {"modality": modality, "epochs": 30, "evaluate_every": 30, "n_test": 500}
        runs = train_many([cfg.replace(**last, seed=s) for cfg in cells for s in (4, 5)])
        accuracy = np.array([float(run.ood_accuracy[-1]) for run in runs]).reshape(3, 3, 2)
        np.testing.assert_allclose(found.maps[modality].mean, accuracy.mean(2), rtol=1e-6)
        sd = accuracy.std(2, ddof=1)
        np.testing.assert_allclose(found.maps[modality].sd, sd, rtol=1e-6, atol=1e-9)
    assert (found.maps["multi"].mean != found.maps["single"].mean).any()
    assert len(np.unique(found.maps["multi"].mean)) > 3


def test_going_on_computes_nothing_twice(small) -> None:
    out, first, _ = small
    again, swept = run_phase("n-snr", out, points=3, seeds=range(4, 6), epochs=30, workers=1)
    assert swept.computed == 0
    assert again.to_json() == first.to_json()


def test_a_store_of_another_plane_is_refused(small) -> None:
    out, _, _ = small
    with pytest.raises(ConfigError, match="plan: expected the one of the store"):
        run_phase("n-snr", out, points=3, seeds=range(4, 7), epochs=30, workers=1)


def test_json(small) -> None:
    _, found, _ = small
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["x"] == {"name": "n", "values": found.xs}
    assert told["seeds"] == [4, 5]
    assert told["fixed"]["noise_rate"] == 0.2
    assert np.shape(told["single"]["mean"]) == (3, 3)
    assert told["multi"]["mean"][2][0] == found.maps["multi"].mean[2, 0]
    assert told["single"]["lemma_window_fails"][0][0] == []
    assert told["multi"]["lemma_window_fails"][0][0] == ["n SNR^2 >= 1.7", "C_mu n SNR^2 >= 4.51"]
    assert told["single"]["assumption_4_1_fails"][0][0] == [
        "d >= n / (sigma_0 sigma_xi)",
        "d >= 1 / (sigma_0 |mu|)^2",
        "n SNR^2 = Theta(1)",
    ]


def made_up(name: str) -> Phase:
    plane = PLANES[name]
    xs, ys = plane.x.values(6), plane.y.values(5)
    rng = np.random.default_rng(0)
    maps = {}
    for modality in ("single", "multi"):
        mean = rng.uniform(0.5, 1, (5, 6))
        ratios, *_ = overlay(plane, xs, ys, modality)
        measured = np.full(6, ys[2])
        measured[0] = np.nan
        maps[modality] = Map(mean, 0 * mean, measured, boundary(ys, ratios, 0.0))
    return Phase(name, plane, xs, ys, range(3), 200, maps, 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_shows_the_numbers(name: str, tmp_path: Path) -> None:
    result = made_up(name)
    figure = phase.phase(result)
    axes = figure.axes[:2]
    assert [axis.get_title() for axis in axes] == ["single-modal", "multi-modal"]
    for axis, modality in zip(axes, ("single", "multi"), strict=True):
        mesh = axis.collections[0]
        np.testing.assert_array_equal(
            np.asarray(mesh.get_array()).ravel(), result.maps[modality].mean.ravel()
        )
        assert mesh.get_clim() == (0.5, 1.0)
        (dots,) = [line for line in axis.get_lines() if line.get_marker() == "o"]
        np.testing.assert_array_equal(dots.get_ydata(), result.maps[modality].measured)
        # The window's border: flat at 1.8, or 1.7 and above it where C_mu n SNR^2 is 4.51.
        (border,) = [
            x for x in axis.collections[1:] if to_hex(x.get_edgecolor()[0]) == to_hex(phase.MARK)
        ]
        for x, y in np.concatenate([path.vertices for path in border.get_paths()])[::20]:
            _, _, margins = overlay(result.plane, [x], [y], modality)
            assert abs(margins[0, 0]) < 2e-2
    path = curves.save(figure, tmp_path / "x.pdf")
    assert path.stat().st_size > 5000


@pytest.mark.parametrize("name", NAMES)
def test_the_legend_names_each_line_by_its_number(name: str) -> None:
    texts = [text.get_text() for text in phase.phase(made_up(name)).legends[0].get_texts()]
    numbers = [
        re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", re.sub(r"\$.*?\$", "", text))
        for text in texts
    ]
    # Lemmas, assumption, seeds with the accuracy half-way between chance and 1, window, Figure 1.
    window = ["1.8", "5.2", "1.7", "4.51", "5.4"]
    expected = [["5.2", "5.4"], ["4.1"], ["3", "0.75"], window, ["1"]]
    if name == "n-snr":
        expected.append(["0.1", "1", "10"])
    assert numbers == expected, texts


def test_the_drawn_line_is_the_boundary_of_t1() -> None:
    result = made_up("cmu-nsnr2")
    axis = phase.phase(result).axes[1]
    contour = axis.collections[1]
    points = np.concatenate([path.vertices for path in contour.get_paths()])
    # On it, C_mu n SNR^2 is nearly constant; its T1s are equal.
    for x, y in points[:: max(1, len(points) // 10)]:
        ratios, *_ = overlay(result.plane, [x], [y], "multi")
        assert abs(ratios[0, 0]) < 1e-2
    assert result.maps["multi"].predicted[3] == pytest.approx(
        float(np.interp(result.xs[3], *points[np.argsort(points[:, 0])].T)), rel=0.05
    )


def test_offsets_are_measured_over_predicted() -> None:
    nan = math.nan
    found = Map(
        np.zeros((1, 3)), np.zeros((1, 3)), np.array([1.0, nan, 3.0]), np.array([2.0, 2.0, nan])
    )
    assert found.offsets.tolist() == [0.5]


def test_the_command(tmp_path: Path, monkeypatch, capsys) -> None:
    from mmcl_fast.cli.commands import phase as command

    monkeypatch.setattr(phase_module, "PLANES", {"d": SMALL})
    monkeypatch.setattr(command, "PLANES", {"d": SMALL})
    flags = ["--plane", "d", "--points", "3", "--seeds", "1", "--epochs", "5", "--workers", "1"]
    assert mmcl(["phase", *flags, "--first-seed", "3", "--out", str(tmp_path)]) == 0
    left = ["phase.json", "phase.pdf", "phase.png", "store"]
    assert sorted(p.name for p in tmp_path.iterdir()) == left
    assert json.loads((tmp_path / "phase.json").read_text())["seeds"] == [3]
    assert "18 computed now" in capsys.readouterr().out


def test_any_two_axes(tmp_path: Path, capsys) -> None:
    flags = ["--x", "m=2,8", "--y", "c_mu=0.5,4", "--points", "3", "--seeds", "1", "--epochs", "5"]
    assert mmcl(["phase", *flags, "--workers", "1", "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "phase.json").read_text())
    assert told["plane"] == "m-c_mu"
    assert told["x"] == {"name": "m", "values": [2.0, 4.0, 8.0]}
    assert told["y"]["values"] == pytest.approx([0.5, math.sqrt(2.0), 4.0])
    assert told["fixed"]["n_snr2"] == 1.25
    assert (tmp_path / "phase.png").stat().st_size > 5000
    capsys.readouterr()


@pytest.mark.parametrize("names", [("noise_rate", "noise_start"), ("c_mu", "snr"), ("n", "d")])
def test_a_plane_of_other_axes_is_drawn(names: tuple[str, str]) -> None:
    ranges = {"n": (10, 200), "d": (1e3, 1e6), "c_mu": (1, 8), "snr": (0.01, 0.5)}
    x, y = (Range(name, *ranges.get(name, (0.01, 0.5))) for name in names)
    plane = Plane(x, y)
    assert plane.name == f"{names[0]}-{names[1]}"
    xs, ys = x.values(3), y.values(3)
    empty = np.full(3, np.nan)
    maps = {m: Map(np.full((3, 3), 0.7), np.zeros((3, 3)), empty, empty) for m in MODALITIES}
    figure = phase.phase(Phase(plane.name, plane, xs, ys, range(2), 20, maps, 0))
    fixed = figure.legends[0].get_title().get_text()
    assert ("SNR}^2$ = 1.25" in fixed) == ("snr" not in names)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("4.51" in text for text in labels) == ("c_mu" in names)
    assert not any("0.1, 1, 10" in text for text in labels), "guides are of n and SNR"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--x", "mm=2,4"], "mm: expected an axis of a plane, got another; did you mean m?"),
        (["--x", "m=4"], "x: expected NAME=LOW,HIGH, such as m=2,512, got 'm=4'"),
        (["--x", "m=4,2"], "m: expected a range from a number to a larger one, got 4, 2"),
        (["--x", "d=0.1,4"], "d: expected a range from 1 or more, got 0.1"),
        (["--y", "c_mu=1,4"], "y: expected an axis that sets another thing than c_mu"),
        (["--x", "snr=0.1,4"], "y: expected an axis that sets another thing than snr"),
        (["--y", "n_snr2=0,4"], "n_snr2: expected a finite number > 0, got 0.0"),
        (["--x", "optimizer=1,2"], "optimizer: expected an axis of a plane, which is a number"),
        (["--x", "epochs=1,9"], "epochs: expected another axis of a plane: every run of a plane"),
        (["--x", "mu_norm=1,9"], "y: expected an axis that sets another thing than mu_norm"),
        (["--fix", "eta=1", "--fix", "noise_rate=1"], "noise_rate: expected it once, got eta"),
        (["--fix", "snr=1"], "snr: expected it once, got n_snr2, which sets it"),
        (["--fix", "modality=both"], "fix: expected one value, NAME=VALUE, got 'modality=both'"),
        (["--fix", "data=explicit"], "data: expected a setting that a plane may fix, got one of"),
        (["--fix", "objective=logistic"], "c_mu: expected an axis that changes single-modal runs"),
        (
            ["--plane", "sigma-eps", "--fix", "modality=multi"],
            "sigma_eps: expected an axis that changes multi-modal runs",
        ),
        (["--fix", "negatives"], "fix: expected NAME=VALUE, got 'negatives'"),
        (["--fix", "mm=3"], "mm: unknown setting"),
        (["--fix", "loss=1"], "loss: unknown setting; nearest: classes, noise_start, label_noise;"),
        (["--x", "view_mask=0,0.5"], "view_mask: expected what both modalities have, got a"),
        (["--fix", "third_share=1"], "third_share: expected what both modalities have, got a"),
        (["--fix", "q=0"], "q: expected an integer in 1 .. 16, got 0"),
        (["--seeds", "0"], "seeds: expected an integer >= 1, got 0"),
        (["--points", "2"], "points: expected an integer in 3 .. 512, got 2"),
        (["--epochs", "0"], "epochs: expected an integer >= 1, got 0"),
        (["--first-seed", "-1"], "seed: expected an integer in 0 .. 2^64 - 1, got -1"),
        (["--plane", "n-snr2"], "n-snr2"),
    ],
)
def test_mistakes(flags: list[str], message: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert mmcl(["phase", *flags, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_the_plan_has_every_cell_once(monkeypatch) -> None:
    plan = phase_plan(SMALL, 3, range(2), 7)
    assert len(plan) == 2 * 9 * 2
    cfg = plan.config(0)
    assert (cfg.epochs, cfg.evaluate_every, cfg.data) == (7, 7, "reduced")


def test_another_head(tmp_path: Path, capsys) -> None:
    flags = ["--plane", "m", "--points", "3", "--seeds", "1", "--epochs", "5", "--workers", "1"]
    head = ["--probe-on", "ood", "--probe-samples", "30", "--probe-penalty", "1e-4"]
    assert mmcl(["phase", *flags, *head, "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "phase.json").read_text())
    settings = {"probe_on": "ood", "probe_samples": 30, "probe_penalty": 1e-4}
    assert (told["plane"], told["probe"]) == ("m", settings)
    cfg = replace(PLANES["m"], probe=Probe(on="ood", samples=30, penalty=1e-4)).cell(512, 20)
    assert {name: getattr(cfg, name) for name in settings} == settings
    run = train_many([cfg.replace(epochs=5, evaluate_every=5, n_test=500)])[0]
    assert told["single"]["mean"][2][2] == pytest.approx(float(run.ood_accuracy[-1]))
    # A store is of one head.
    assert mmcl(["phase", *flags, "--out", str(tmp_path)]) == 2
    assert "probe_on" in capsys.readouterr().err
    assert mmcl(["phase", "--probe-samples", "30", "--out", str(tmp_path / "x")]) == 2
    assert "probe_samples: expected None" in capsys.readouterr().err

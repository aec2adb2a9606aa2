"""Planes of any two settings: what their cells have, and what is drawn on them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mmcl_fast import ConfigError
from mmcl_fast.cli.commands.phase import chosen_plane
from mmcl_fast.experiments.phase.axis import Range
from mmcl_fast.experiments.phase.diagram import Map, Phase, boundary, half_way, phase_plan
from mmcl_fast.experiments.phase.overlay import conditions
from mmcl_fast.experiments.phase.planes import PLANES, Plane
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.plotting import phase

BASE = Scaled(n=20, d=10**4, m=4)


def test_a_fixed_setting_of_one_modality_is_in_its_runs_alone() -> None:
    fixed = ["spurious_b_norm=2", "view_scale=0.5"]
    plane = chosen_plane("spurious", None, None, {}, fixed)
    assert plane.of_one_modality == {"spurious_b_norm": 2, "view_scale": 0.5}
    plan = phase_plan(plane, 3, range(1), 4)
    assert len(plan) == 2 * 9
    found = {(cfg.modality, cfg.spurious_b_norm, cfg.view_scale) for cfg in plan.points}
    assert found == {("single", 0.0, 0.5), ("multi", 2.0, 1.0)}
    assert [cfg.modality for cfg in plan.points] == ["single"] * 9 + ["multi"] * 9
    plain = phase_plan(PLANES["spurious"], 3, range(1), 4)
    changes = {"spurious_b_norm": 0.0, "view_scale": 1.0}
    for k, cfg in enumerate(plan.points):
        assert cfg.replace(**changes) == plain.points[k], "neighbours differ in nothing else"


@pytest.mark.parametrize("name", ["mu_norm", "mu_b_norm", "nu_norm", "eta", "sigma_0", "tau"])
def test_an_axis_of_a_setting_is_that_setting_and_its_quantity_agrees(name: str) -> None:
    other = Range("m", 2, 8)
    plane = Plane(Range(name, 0.5, 3.0), other, BASE)
    cfg, point = plane.cell(0.7, 4), plane.at(0.7, 4)
    assert getattr(cfg, name) == 0.7
    settings = ("mu_norm", "eta", "sigma_0", "sigma_eps")
    assert [getattr(point, s) for s in settings] == pytest.approx(
        [getattr(cfg, s) for s in settings]
    )
    assert point.tau == cfg.tau_value
    assert point.c_mu == pytest.approx(cfg.mu_b_norm / cfg.mu_norm)
    noise_rate = cfg.eta * cfg.d / (cfg.n * cfg.m * cfg.tau_value)
    assert point.noise_rate == pytest.approx(noise_rate)
    if name != "eta":
        assert noise_rate == pytest.approx(BASE.noise_rate)
    if name == "nu_norm":
        assert cfg.mu_norm == pytest.approx(BASE.mu_norm)


def test_shares_and_correlations_are_linear_and_so_is_what_begins_at_zero() -> None:
    assert Range("spurious_correlation", 0.2, 1).values(5) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert Range("sigma_eps", 0, 1).values(3) == pytest.approx([0, 0.5, 1])
    assert Range("sigma_eps", 0.01, 1).values(3) == pytest.approx([0.01, 0.1, 1])
    assert Range("classes", 2, 8).values(3) == [2, 4, 8]
    found = boundary([0.0, 1.0, 3.0], np.array([[0.0], [0.0], [1.0]]), 0.5, linear=True)
    assert found.tolist() == [2.0]


def test_a_third_share_is_of_the_signal_of_a() -> None:
    cfg = PLANES["third"].cell(2.0, 3.0).replace(modality="multi")
    assert cfg.modalities == ("a", "b", "c")
    assert cfg.mu_b_norm == pytest.approx(2.0 * cfg.mu_norm)
    assert cfg.mu_c_norm == pytest.approx(3.0 * cfg.mu_norm)


def test_a_spurious_share_is_of_the_signal() -> None:
    plane = PLANES["spurious"]
    cfg = plane.cell(0.6, 2.0)
    assert cfg.spurious_correlation == 0.6
    assert cfg.spurious_norm == pytest.approx(2.0 * cfg.mu_norm)
    assert (cfg.n_snr2, cfg.spurious_b_norm) == (pytest.approx(8.0), 0.0)


def test_half_way_is_from_chance() -> None:
    plane = PLANES["classes"]
    assert half_way(plane.cell(4, 32)) == (1 + 1 / 4) / 2
    assert half_way(PLANES["m"].cell(4, 1)) == 0.75


def test_sigma_eps_enters_the_assumption() -> None:
    plane = PLANES["sigma-eps"]
    assert plane.modalities == ("single",)
    assert plane.is_of_the_paper
    small, large = (
        {c.condition for c in conditions(plane.at(x, 1.0), "single") if not c.holds}
        for x in (0.03, 10.0)
    )
    assert {c for c in large if "sigma_eps" in c}
    assert not {c for c in small if "sigma_eps" in c}


def test_fixed_settings_are_of_every_cell_and_take_the_place_of_the_bases() -> None:
    plane = chosen_plane(
        "cmu-nsnr2", None, None, {}, ["negatives=all", "n=30", "similarity=cosine", "eta=0.3"]
    )
    for cfg in (plane.cell(0.25, 0.05), plane.cell(8.0, 20.0)):
        assert (cfg.negatives, cfg.n, cfg.eta, cfg.tau) == ("all", 30, 0.3, 0.1)
        assert cfg.sigma_0 == PLANES["cmu-nsnr2"].cell(1, 1).sigma_0
    assert not plane.is_of_the_paper
    assert plane.name == "c_mu-n_snr2"
    same = chosen_plane("cmu-nsnr2", None, None, {}, ["negatives=other_label", "q=1"])
    assert same.is_of_the_paper
    assert chosen_plane("m", None, None, {}).name == "m"


def test_the_supervised_model_has_one_map() -> None:
    plane = chosen_plane("m", None, None, {}, ["objective=logistic"])
    assert plane.modalities == ("single",)
    assert plane.cell(4, 1).tau == 1.0


def test_a_fixed_setting_that_no_cell_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="label_noise: expected 0 with objective contrastive"):
        Plane(PLANES["d"].x, PLANES["d"].y, fixed=(("label_noise", 0.1),))
    fixed = (("objective", "logistic"), ("modality", "multi"))
    with pytest.raises(ConfigError, match="modality: expected single with objective logistic"):
        Plane(PLANES["d"].x, PLANES["d"].y, fixed=fixed)


def drawn(plane: Plane) -> Phase:
    xs, ys = plane.x.values(4), plane.y.values(5)
    mean = np.random.default_rng(0).uniform(0.2, 1, (5, 4))
    one = Map(mean, 0 * mean, np.full(4, ys[2]), np.full(4, math.nan))
    return Phase(plane.name, plane, xs, ys, range(3), 50, dict.fromkeys(plane.modalities, one), 1)


@pytest.mark.parametrize("name", ["pair-noise", "spurious", "classes"])
def test_no_border_is_drawn_on_another_model(name: str) -> None:
    result = drawn(PLANES[name])
    figure = phase.phase(result)
    assert len(figure.axes) == 3
    for axis in figure.axes[:2]:
        assert len(axis.collections) == 1
        assert [line.get_marker() for line in axis.get_lines()] == ["o"]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == 2
    assert not any("Lemma" in text or "Figure 1" in text for text in texts)
    linear = name in ("pair-noise", "spurious")
    assert (figure.axes[0].get_xscale() == "linear") == linear
    assert (result.to_json()["single"]["assumption_4_1_fails"]) is None
    limits = figure.axes[0].collections[0].get_clim()
    assert limits == ((0.5, 1.0) if name == "pair-noise" else (0.0, 1.0))


def test_a_plane_of_one_modality_has_one_map_with_borders() -> None:
    figure = phase.phase(drawn(PLANES["sigma-eps"]))
    assert [axis.get_title() for axis in figure.axes[:-1]] == ["single-modal"]
    assert "*" in [line.get_marker() for line in figure.axes[0].get_lines()]
    title = figure.legends[0].get_title().get_text()
    assert "C_" not in title


@pytest.mark.parametrize(
    ("fixed", "told"),
    [
        ([], r"$\tau = 1/m$"),
        (["similarity=cosine"], r"$\tau$ = 0.1"),
        (["objective=logistic"], r"$\tau$ = 1,"),
        (["tau=0.5"], r"$\tau$ = 0.5"),
    ],
)
def test_the_caption_has_the_temperature_of_the_cells(fixed: list[str], told: str) -> None:
    result = drawn(chosen_plane("d", None, None, {}, fixed))
    figure = phase.phase(result)
    cell = result.plane.cell(result.xs[0], result.ys[0])
    assert result.to_json()["fixed"]["temperature"] == (cell.tau if fixed else None)
    title = figure.legends[0].get_title().get_text()
    assert told in title
    assert title.count(r"\tau") == 1


def test_the_caption_has_no_temperature_where_it_is_an_axis() -> None:
    figure = phase.phase(drawn(chosen_plane("d", "tau=0.1,1", None, {})))
    assert r"\tau" not in figure.legends[0].get_title().get_text()


def test_the_plan_varies_what_the_axes_set() -> None:
    plane = replace(PLANES["spurious"], fixed=(("engine", "reference"), ("n", 10)))
    plan = phase_plan(plane, 3, range(2), 4)
    assert len(plan) == 2 * 9 * 2
    cfg = plan.config(2 * 4)  # the middle cell, single-modal
    assert cfg.modality == "single"
    assert (cfg.spurious_correlation, cfg.spurious_correlation_test) == (0.5, -0.5)
    assert cfg.spurious_norm == pytest.approx(cfg.mu_norm)


def test_a_third_modality_is_of_the_multi_modal_map_alone() -> None:
    plane = chosen_plane("m", None, None, {}, ["mu_c_norm=3", "d_c=5000"])
    plan = phase_plan(plane, 2, range(1), 4)
    found = {(cfg.modality, cfg.mu_c_norm, cfg.d_c) for cfg in plan.points}
    assert found == {("single", None, None), ("multi", 3.0, 5000)}
    with pytest.raises(ConfigError, match=r"third_share: expected what both mod.*=multi"):
        chosen_plane("m", None, "third_share=0.5,2", {})

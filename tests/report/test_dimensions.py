"""Axes of a report: the swept settings, or the fewest that tell all apart."""

import numpy as np
import pytest

from mmcl_fast import TrainConfig, sweep
from mmcl_fast.experiments.phase.diagram import phase_plan
from mmcl_fast.experiments.phase.planes import PLANES
from mmcl_fast.report.dimensions import dimensions, settings_table
from mmcl_fast.sweep.plan.plan import Plan

BASE = TrainConfig(n=10, d=30, m=2, n_test=20, epochs=2, data="reduced")


def axes_of(plan: Plan):
    names = [axis.names[0] for axis in plan.axes if len(axis.names) == 1]
    return dimensions(settings_table(plan), names)


def test_a_grid_has_its_own_axes_with_modality_last() -> None:
    grid = {"modality": ["both"], "m": [64, 4, 16], "snr": [0.1, 0.2]}
    axes = axes_of(sweep.make_plan(BASE, grid=grid, seeds=2))
    assert [axis.name for axis in axes] == ["m", "snr", "modality"]
    assert axes[0].labels == ["4", "16", "64"]
    assert axes[0].scale == "log"
    np.testing.assert_allclose(axes[0].places, np.log10([4, 16, 64]))
    assert axes[1].scale == "linear"
    assert axes[2].labels == ["single", "multi"]
    assert axes[2].places == [0.0, 1.0]


def test_each_setting_is_at_its_values() -> None:
    grid = {"modality": ["both"], "m": [64, 4, 16]}
    plan = sweep.make_plan(BASE, grid=grid)
    by_name = {axis.name: axis for axis in axes_of(plan)}
    for k, cfg in enumerate(plan.points):
        assert by_name["m"].labels[by_name["m"].index[k]] == str(cfg.m)
        assert by_name["modality"].labels[by_name["modality"].index[k]] == cfg.modality


@pytest.mark.parametrize("name", list(PLANES))
def test_zipped_settings_of_a_phase_diagram_are_its_plane(name: str) -> None:
    plan = phase_plan(PLANES[name], 4, range(2), 3)
    axes = axes_of(plan)
    plane = PLANES[name]
    # A share of |mu| is no column; at one |mu| the norm is as good.
    names = {"spurious_share": "spurious_norm", "third_share": "mu_c_norm"}
    expected = {names.get(axis.name, axis.name) for axis in (plane.x, plane.y)}
    both = "modality" not in dict(plane.fixed)
    assert {axis.name for axis in axes} == expected | ({"modality"} if both else set())
    assert [len(axis.labels) for axis in axes] == [4, 4, *([2] if both else [])]


def test_settings_that_vary_together_are_one_axis() -> None:
    plan = sweep.make_plan(BASE, zipped={"m": [2, 3, 4], "n": [10, 12, 14]})
    (axis,) = axes_of(plan)
    assert len(axis.labels) == 3


def test_one_setting_has_no_axis() -> None:
    assert axes_of(sweep.make_plan(BASE, seeds=3)) == []


def test_labels_differ() -> None:
    values = [1 / 3, 1 / 3 + 1e-7, 0.5]
    plan = sweep.make_plan(BASE, grid={"mu_norm": values})
    (axis,) = axes_of(plan)
    assert len(set(axis.labels)) == 3
    assert axis.labels[2] == "0.5"


def test_an_axis_with_a_default_value_has_words() -> None:
    plan = sweep.make_plan(BASE, grid={"negatives_per_sample": [None, 2]})
    (axis,) = axes_of(plan)
    assert axis.labels == ["none", "2"]
    assert axis.scale == "words"

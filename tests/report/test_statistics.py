"""Statistics of a store: those of NumPy over its rows, in however many batches they come."""

from pathlib import Path

import numpy as np
import pytest

from mmcl_fast import sweep
from mmcl_fast.report.statistics import FINALS, Moments, gather
from mmcl_fast.sweep.store.plan_file import read_plan
from mmcl_fast.sweep.store.schema import CURVES


def test_moments_of_batches_are_those_of_all_rows() -> None:
    generator = np.random.default_rng(3)
    rows = 1e6 + generator.normal(size=(400, 2))  # a sum of squares would lose every digit
    groups = generator.integers(0, 5, 400)
    moments = Moments(6, 2)
    for batch in np.array_split(np.arange(400), [1, 50, 51, 300]):
        order = batch[np.argsort(groups[batch], kind="stable")]
        moments.add(rows[order], groups[order])
    for k in range(5):
        mine = rows[groups == k]
        np.testing.assert_allclose(moments.means[k], mine.mean(0), rtol=1e-14)
        np.testing.assert_allclose(moments.sd[k], mine.std(0, ddof=1), rtol=1e-9)
    assert np.isnan(moments.means[5]).all()
    assert np.isnan(moments.sd[5]).all()


def test_one_row_has_no_spread_and_no_row_has_no_mean() -> None:
    moments = Moments(2, 1)
    moments.add(np.array([[4.0]]), np.array([1]))
    assert moments.sd.tolist()[1] == [0.0]
    assert np.isnan(moments.means[0, 0])


@pytest.mark.parametrize("name", ["store", "diverged"])
def test_a_store(name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    plan = read_plan(path)
    epochs = np.array([0, 4, 5, 12])
    found = gather(path, plan.point_of.astype(np.int64), len(plan.points), epochs, 2)
    rows = sweep.load(path).to_pylist()
    for k in range(len(plan.points)):
        mine = [row for row in rows if plan.point_of[row["run_id"]] == k]
        finished = [row for row in mine if row["status"] == "finished"]
        for status, count in found.counts.items():
            assert count[k] == sum(row["status"] == status for row in mine)
        shown = [j for j, setting in enumerate(found.runs.setting) if setting == k]
        assert [found.runs.run[j] for j in shown] == [row["run_id"] for row in mine[:2]]
        for i, curve in enumerate(CURVES):
            finals = np.array([row[FINALS[i]] for row in finished])
            curves = np.array([row[curve] for row in finished], float).reshape(-1, 13)[:, epochs]
            if len(finals):
                np.testing.assert_allclose(found.finals.means[k, i], finals.mean(), rtol=1e-12)
                np.testing.assert_allclose(found.finals.sd[k, i], finals.std(ddof=1), rtol=1e-9)
                assert found.least[k, i] == finals.min()
                assert found.largest[k, i] == finals.max()
                np.testing.assert_allclose(found.curves[curve].means[k], curves.mean(0), rtol=1e-12)
                sd = curves.std(0, ddof=1)
                np.testing.assert_allclose(found.curves[curve].sd[k], sd, rtol=1e-6, atol=1e-12)
            else:
                assert np.isnan(found.finals.means[k, i])
            for j, row in zip(shown, mine[:2], strict=True):
                np.testing.assert_array_equal(
                    found.runs.values[j][i], np.array(row[curve], float)[epochs]
                )


def test_settings_left_out_are_not_counted(store: Path) -> None:
    plan = read_plan(store)
    setting_of = np.where(plan.point_of == 3, 0, -1)
    found = gather(store, setting_of, 1, np.array([0]), 5)
    assert found.counts["finished"].tolist() == [3]
    assert len(found.runs.run) == 3

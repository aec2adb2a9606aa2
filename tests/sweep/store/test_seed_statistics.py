"""Statistics over seeds against the definition, and what must not be averaged."""

import math

import numpy as np
import pyarrow as pa
import pytest

from mmcl_fast import ConfigError, TrainConfig
from mmcl_fast.config import FIELD_NAMES
from mmcl_fast.sweep.store.seed_statistics import over_seeds

SEEDS = ("seed", "data_seed", "init_seed")


def make_table(rows: list[dict]) -> pa.Table:
    """Rows of a store: given columns, and Figure 1's settings for the rest."""
    base = {"status": "finished", "n_snr2": 1.25, "final_loss": 0.5, **TrainConfig().to_dict()}
    whole = [base | {"seed": k} | row for k, row in enumerate(rows)]
    return pa.table({name: [row[name] for row in whole] for name in whole[0]})


def test_mean_and_sample_deviation_of_each_cell() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 2, 5))
    rows = [
        {"m": m, "modality": modality, "final_loss": values[i, j, k]}
        for i, m in enumerate((64, 2, 16))
        for j, modality in enumerate(("single", "multi"))
        for k in range(5)
    ]
    order = rng.permutation(len(rows))
    cells = over_seeds(make_table([rows[k] for k in order]), ["m", "modality"], "final_loss")
    assert cells.keys["m"] == [2, 2, 16, 16, 64, 64]
    assert cells.keys["modality"] == ["multi", "single"] * 3
    for cell, (m, modality) in enumerate(zip(cells.keys["m"], cells.keys["modality"], strict=True)):
        mine = values[(64, 2, 16).index(m), ("single", "multi").index(modality)]
        assert cells.mean[cell] == pytest.approx(mine.mean(), rel=1e-12)
        assert cells.sd[cell] == pytest.approx(mine.std(ddof=1), rel=1e-12)
    assert cells.count.tolist() == [5] * 6
    assert cells.where(m=16).tolist() == [2, 3]
    assert cells.where(m=16, modality="single").tolist() == [3]


def test_a_large_mean_does_not_swallow_the_deviation() -> None:
    rows = [{"final_loss": 1e8 + k} for k in (0.0, 1.0, 2.0)]
    assert over_seeds(make_table(rows), ["m"], "final_loss").sd == pytest.approx([1.0])


def test_runs_that_did_not_finish_are_left_out_and_counted() -> None:
    rows = [
        {"m": 2, "final_loss": 1.0},
        {"m": 2, "final_loss": math.nan, "status": "diverged"},
        {"m": 2, "final_loss": 7.0, "status": "failed"},
        {"m": 3, "final_loss": math.nan, "status": "diverged"},
    ]
    cells = over_seeds(make_table(rows), ["m"], "final_loss")
    assert cells.count.tolist() == [1, 0]
    assert cells.left_out.tolist() == [2, 1]
    assert cells.mean[0] == 1.0
    assert cells.sd[0] == 0.0
    assert np.isnan(cells.mean[1])
    assert np.isnan(cells.sd[1])


def test_curves_epoch_by_epoch() -> None:
    curves = np.arange(12.0).reshape(4, 3) ** 2
    rows = [{"m": m, "loss": curve.tolist()} for m, curve in zip((5, 4, 5, 4), curves, strict=True)]
    rows.append({"m": 4, "loss": [1e9] * 3, "status": "diverged"})
    cells = over_seeds(make_table(rows), ["m"], "loss")
    np.testing.assert_allclose(cells.mean, [curves[1::2].mean(0), curves[::2].mean(0)])
    np.testing.assert_allclose(cells.sd, [curves[1::2].std(0, ddof=1), curves[::2].std(0, ddof=1)])
    assert cells.left_out.tolist() == [1, 0]


def test_failed_rows_have_no_curves() -> None:
    rows = [{"loss": None, "status": "failed"}, {"loss": [1.0, 2.0]}, {"loss": [3.0, 6.0]}]
    cells = over_seeds(make_table(rows), ["m"], "loss")
    np.testing.assert_allclose(cells.mean, [[2.0, 4.0]])


def test_derived_keys_are_equal_up_to_rounding() -> None:
    rows = [{"n_snr2": 0.3}, {"n_snr2": 0.1 + 0.2}, {"n_snr2": 0.30001}]
    cells = over_seeds(make_table(rows), ["n_snr2"], "final_loss")
    assert cells.keys["n_snr2"] == [0.3, 0.30001]
    assert cells.count.tolist() == [2, 1]


def test_settings_are_not_averaged_over() -> None:
    rows = [{"m": 16, "tau": 1 / 16}, {"m": 64, "tau": 1 / 64}, {"m": 64, "tau": 1 / 64}]
    with pytest.raises(ConfigError, match=r"^m: expected one value in each point .* got 16, 64;"):
        over_seeds(make_table(rows), ["modality"], "final_loss")
    # tau follows m, so it varies between cells and not inside one.
    assert len(over_seeds(make_table(rows), ["m"], "final_loss")) == 2


@pytest.mark.parametrize("name", sorted({*FIELD_NAMES} - {"modality", *SEEDS}))
def test_every_setting_is_watched(name: str) -> None:
    values = ["a", "b"] if isinstance(getattr(TrainConfig(), name), str) else [1, 2]
    with pytest.raises(ConfigError, match=f"^{name}: expected one value"):
        over_seeds(make_table([{name: v} for v in values]), ["modality"], "final_loss")


def test_seeds_are_what_is_averaged_over() -> None:
    rows = [{"seed": k, "data_seed": k, "init_seed": 2 * k} for k in range(3)]
    assert over_seeds(make_table(rows), ["m"], "final_loss").count.tolist() == [3]


def test_a_setting_that_is_none_is_a_value() -> None:
    rows = [{"negatives_per_sample": None}, {"negatives_per_sample": 5}]
    cells = over_seeds(make_table(rows), ["negatives_per_sample"], "final_loss")
    assert cells.keys["negatives_per_sample"] == [None, 5]


def test_curves_of_different_lengths_are_refused() -> None:
    rows = [{"epochs": 1, "loss": [1.0, 2.0]}, {"epochs": 2, "loss": [1.0, 2.0, 3.0]}]
    with pytest.raises(ConfigError, match="epochs: expected curves of one length, got 1, 2"):
        over_seeds(make_table(rows), ["epochs"], "loss")


def test_no_rows() -> None:
    with pytest.raises(ConfigError, match="store: expected rows to draw, got none"):
        over_seeds(make_table([{}]).slice(0, 0), ["m"], "final_loss")

"""Each check's arithmetic and verdict on curves whose answer is known."""

import math

import numpy as np
import pytest
import torch

from mmcl_fast import Run, TrainConfig
from mmcl_fast.experiments.crossing import first_crossing
from mmcl_fast.experiments.theory_checks import (
    c_mu,
    first_stage,
    generalisation,
    growth,
    scale,
    signs,
)
from mmcl_fast.experiments.theory_checks.check import log_slope, measured_series, spread
from mmcl_fast.theory import MIN_C_MU

EPOCHS = np.arange(40.0)
D = (100, 1000, 10_000)


def grown(factor: float, scale_: float) -> torch.Tensor:
    return torch.tensor(scale_ * (factor**EPOCHS - 1), dtype=torch.float64)


def planted_run(modality: str, gamma: torch.Tensor, rho: torch.Tensor) -> Run:
    """A run of two neurons and three samples; the second neuron and sample lag behind."""
    cfg = TrainConfig(n=3, d=5, m=2, modality=modality, epochs=len(EPOCHS) - 1)
    loss = torch.where(torch.arange(len(EPOCHS)) < 20, 1.0, 0.5)
    return Run(
        cfg,
        *(loss, loss, loss, loss),
        gamma_curve=torch.stack([-gamma, 0.1 * gamma], 1),
        rho_curve=torch.stack(
            [torch.stack([rho, 0.5 * rho, 0.9 * rho], 1), torch.zeros(len(EPOCHS), 3)], 1
        ),
    )


def test_growth_is_read_from_increments_not_from_values() -> None:
    # log(a (g^t - 1)) is far from a line at small t; its increments are one.
    assert growth.growth_factor(0.01 * (1.2**EPOCHS - 1), 2, 12) == pytest.approx(1.2, rel=1e-12)
    assert growth.growth_factor(7 + 3 * (1.05**EPOCHS), 0, 39) == pytest.approx(1.05, rel=1e-9)


def test_growth_is_read_inside_the_window_only() -> None:
    curve = np.where(EPOCHS <= 10, 1.3**EPOCHS - 1, 1.3**10 - 1)
    assert growth.growth_factor(curve, 0, 10) == pytest.approx(1.3, rel=1e-12)
    assert math.isnan(growth.growth_factor(curve, 0, 20)), "a curve that stands still has no factor"
    assert math.isnan(growth.growth_factor(curve, 3, 4)), "one increment has none"


def test_window_ends_where_the_loss_has_fallen() -> None:
    loss = np.array([4.0, 4.0, 3.9, 3.8, 3.7, 3.65, 3.61, 3.59, 1.0])
    assert growth.window(loss) == (2, 7)
    assert growth.window(np.full(10, 4.0)) == (3, 9)


def test_factors_of_a_run() -> None:
    run = planted_run("single", grown(1.1, 0.3), grown(1.25, 0.02))
    assert growth.run_factors(run) == (pytest.approx(1.1, rel=1e-9), pytest.approx(1.25, rel=1e-9))


def growth_rows(single_noise: float, multi_signal: float):
    """Rows from planted constants: [settings, seeds], two starts and one rate."""
    grid = growth.GrowthGrid(rates=(0.1,), starts=(1.0, 0.1))
    wiggle = np.array([[0.0, 0.0, 0.0], [-0.01, 0.0, 0.01]])
    found = {
        ("single", "signal"): 0.5 + wiggle,
        ("single", "noise"): single_noise + wiggle,
        ("multi", "signal"): multi_signal + wiggle,
        ("multi", "noise"): 0.9 + wiggle,
    }
    return growth.judge(found, grid)


@pytest.mark.parametrize(
    ("constant", "agrees"), [(0.97, True), (0.955, True), (0.94, False), (0.5, False)]
)
def test_bound_of_lemma_5_2(constant: float, agrees: bool) -> None:
    row = growth_rows(constant, 0.5)[0]
    assert row.agrees == agrees
    assert spread(row.per_seed) == (pytest.approx(constant), pytest.approx(0.01))


@pytest.mark.parametrize(("constant", "agrees"), [(0.5, True), (0.46, False)])
def test_bound_of_lemma_5_4(constant: float, agrees: bool) -> None:
    assert growth_rows(0.96, constant)[1].agrees == agrees


def test_which_grows_faster() -> None:
    rows = growth_rows(0.9, 0.5)
    # Signal over noise: 1.25 x 0.5 / 0.9 and 3.75 x 0.5 / 0.9.
    assert spread(rows[4].per_seed)[0] == pytest.approx(1.25 * 0.5 / 0.9, rel=1e-3)
    assert spread(rows[5].per_seed)[0] == pytest.approx(3.75 * 0.5 / 0.9, rel=1e-3)
    assert rows[4].agrees
    assert rows[5].agrees
    assert not growth_rows(0.6, 0.5)[4].agrees, "0.625 > 0.6: signal wins"
    assert not growth_rows(0.9, 0.2)[5].agrees, "0.75 < 0.9: noise wins"


def test_a_rate_of_order_one_is_steady() -> None:
    grid = growth.GrowthGrid(rates=(0.1,), starts=(1.0, 0.1))
    even = np.full((2, 3), 0.5)
    uneven = np.array([[0.3] * 3, [0.5] * 3])
    for noise, agrees in ((even, True), (uneven, False), (even * 3, False), (even / 3, False)):
        found = {(m, w): even for m in ("single", "multi") for w in ("signal", "noise")}
        rows = growth.judge(found | {("multi", "noise"): noise}, grid)
        assert rows[3].agrees == agrees


def test_epoch_reaching() -> None:
    assert first_stage.epoch_reaching(np.array([0.1, 0.4, 0.5, 0.3]), 0.5) == 2
    assert first_stage.epoch_reaching(np.array([0.1, 0.4]), 0.5) == math.inf


def test_winner_is_the_slowest_sample_or_the_fastest_neuron() -> None:
    gamma, rho = grown(1.1, 0.3), grown(1.25, 0.02)
    np.testing.assert_allclose(first_stage.winner(planted_run("single", gamma, rho)), 0.5 * rho)
    np.testing.assert_allclose(first_stage.winner(planted_run("multi", gamma, rho)), gamma)


@pytest.mark.parametrize(
    ("ratios", "bound", "order"),
    [
        ([[0.5, 0.7], [0.7, 0.7]], True, True),
        ([[0.5, 1.1], [0.7, 0.7]], False, True),
        ([[0.4, 0.4], [0.7, 0.7]], True, False),
        ([[0.3, 0.3], [0.3, 0.3]], True, False),
        ([[1.2, 1.2], [1.2, 1.2]], False, False),
        ([[0.5, math.inf], [0.7, 0.7]], False, False),
    ],
)
def test_t1_as_bound_and_as_order(ratios: list[list[float]], bound: bool, order: bool) -> None:
    t1 = np.array([30.0, 60.0])
    rows = first_stage.judge("single", t1, np.array(ratios) * t1[:, None])
    assert [row.agrees for row in rows] == [bound, order]


def test_predicted_t1_at_figure_1() -> None:
    # The specification's printed values.
    assert first_stage.predicted_t1(TrainConfig()) == pytest.approx(34.7, abs=0.05)
    assert first_stage.predicted_t1(TrainConfig(modality="multi")) == pytest.approx(27, abs=0.05)


def test_exponents() -> None:
    assert log_slope([1, 10, 100], [5, 0.5, 0.05]) == pytest.approx(-1)
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert spread([4.0]) == (4.0, 0.0)
    series = measured_series("x", "single", [1, 2], np.array([[1.0, 3.0], [5.0, 5.0]]))
    assert series.mean == (2.0, 5.0)
    assert series.sd == (pytest.approx(math.sqrt(2)), 0.0)


@pytest.mark.parametrize(
    ("exponent", "factor", "stays", "falls"),
    [
        (0.0, 1.0, True, False),
        (0.0, 0.09, False, False),
        (0.2, 1.0, False, False),
        (-0.2, 1.0, False, False),
        (-0.39, 1.0, False, False),
        (-0.5, 1.0, False, True),
    ],
)
@pytest.mark.parametrize("modality", ["single", "multi"])
def test_scale_verdicts(
    exponent: float, factor: float, stays: bool, falls: bool, modality: str
) -> None:
    n = (50, 100, 200)
    values = factor * np.array([[1.0, 1.0], [2.0**exponent] * 2, [4.0**exponent] * 2])
    order_one = scale.of_order_one(n, values, modality)
    vanishing = scale.vanishing(n, values, modality)
    assert (order_one.agrees, vanishing.agrees) == (stays, falls)
    assert order_one.per_seed == pytest.approx((exponent, exponent), abs=1e-12)


@pytest.mark.parametrize(("exponent", "agrees"), [(0.4, True), (0.1, False), (-0.4, False)])
def test_scale_with_sigma_0(exponent: float, agrees: bool) -> None:
    starts = (1.0, 0.1, 0.01)
    values = np.array([[s**exponent] * 2 for s in starts])
    row = scale.with_sigma_0(starts, values, 100)
    assert row.agrees == agrees
    assert row.per_seed == pytest.approx((exponent, exponent), abs=1e-12)


def test_disagreement_counts_signs() -> None:
    one = torch.tensor([1.0, -2.0, 3.0, -4.0])
    assert signs.disagreement(one, -one) == 1.0
    assert signs.disagreement(one, torch.tensor([5.0, 1.0, 0.1, -1.0])) == 0.25


@pytest.mark.parametrize(
    ("flips", "together", "kept", "synchronised"),
    [
        ([0.2, 0.05, 0.005], [1.0, 1.0, 1.0], True, True),
        ([0.0, 0.0, 0.02], [1.0, 0.98, 1.0], False, False),
    ],
)
def test_sign_verdicts(
    flips: list[float], together: list[float], kept: bool, synchronised: bool
) -> None:
    columns = [np.array([[v, v] for v in x]) for x in (flips, [0, 0, 0], [0.5] * 3, together)]
    rows = signs.judge(D, *columns)
    assert [row.agrees for row in rows] == [kept, True, synchronised]


def test_crossing_is_interpolated() -> None:
    assert first_crossing([1, 2, 4], [0.5, 0.6, 1.0], 0.7) == pytest.approx(2.5)
    assert first_crossing([1, 2, 4], [0.5, 0.7, 1.0], 0.7) == 2.0
    assert math.isnan(first_crossing([1, 2, 4], [0.8, 0.9, 1.0], 0.7)), "above from the start"


def steps(at: float, places: tuple[float, ...]) -> np.ndarray:
    """Accuracy that rises from 0.5 to 1 within 0.2 around a place, two seeds."""
    rise = np.clip((np.array(places) - at) / 0.2 + 0.5, 0, 1)
    return np.stack([0.5 + 0.5 * rise] * 2, 1)


@pytest.mark.parametrize(
    ("at", "verdicts"),
    [
        (1.6, [True, True, True]),
        (2.5, [True, True, False]),
        (3.5, [False, True, False]),
        (4.0, [False, False, False]),
    ],
)
def test_c_mu_verdicts(at: float, verdicts: list[bool]) -> None:
    places = tuple(sorted({*np.arange(0.5, 6, 0.05).tolist(), MIN_C_MU}))
    rows = c_mu.judge(places, {1.25: steps(at, places)})
    assert [row.agrees for row in rows] == verdicts
    for row in rows[1:]:
        assert spread(row.per_seed)[0] == pytest.approx(1.25 * at, abs=0.03)


def test_c_mu_balance_is_asked_at_every_n_snr2() -> None:
    places = tuple(sorted({*np.arange(0.5, 6, 0.05).tolist(), MIN_C_MU}))
    good = {1.25: steps(1.6, places), 0.5: steps(4.0, places)}
    assert [row.agrees for row in c_mu.judge(places, good)[1:]] == [True, True]
    for other, verdicts in ((0.7, [True, False]), (1.7, [False, False])):
        rows = c_mu.judge(places, good | {other: steps(4.0, places)})
        assert [row.agrees for row in rows[1:]] == verdicts


@pytest.mark.parametrize(("error", "agrees"), [(0.3, True), (0.2, False)])
def test_the_edge_of_the_single_modal_window(error: float, agrees: bool) -> None:
    row = c_mu.judge_single({1.8: (error, error), 1.25: (0.5, 0.5)})
    assert row.agrees == agrees
    assert row.note == f"{error:.3f} at n SNR^2 = 1.8; 0.500 at n SNR^2 = 1.25"


@pytest.mark.parametrize(
    ("modality", "errors", "agrees"),
    [
        ("single", [0.45, 0.46, 0.44], True),
        ("single", [0.45, 0.3, 0.2], False),
        ("single", [0.45, 0.4, 0.3], False),
        ("multi", [0.03, 0.01, 0.0], True),
        ("multi", [0.0, 0.01, 0.005], False),
        ("multi", [0.2, 0.1, 0.02], False),
    ],
)
def test_error_verdicts(modality: str, errors: list[float], agrees: bool) -> None:
    row = generalisation.judge("n fixed", modality, D, np.array([[e, e] for e in errors]))
    assert row.agrees == agrees
    assert row.per_seed == (errors[-1], errors[-1])

"""Each check's arithmetic and verdict on curves whose answer is known."""

import math

import numpy as np
import pytest
import torch

from mmcl_fast import Run, TrainConfig
from mmcl_fast.experiments.crossing import first_crossing
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.experiments.theory_checks import (
    c_mu,
    first_stage,
    generalisation,
    growth,
    scale,
    signs,
)
from mmcl_fast.experiments.theory_checks.check import log_slope, measured_series, shown, spread
from mmcl_fast.theory import MIN_C_MU, noise_growth

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


WIGGLE = np.array([[0.0, 0.0, 0.0], [-0.01, 0.0, 0.01]])


def growth_rows(single_noise: float, multi_signal: float, others: tuple[float, float] = (0.5, 0.9)):
    """Rows from planted constants: [settings, seeds], two starts and one rate."""
    grid = growth.GrowthGrid(rates=(0.1,), starts=(1.0, 0.1))
    found = {
        ("single", "signal"): others[0] + WIGGLE,
        ("single", "noise"): single_noise + np.array([[-0.05], [0.0]]) + WIGGLE,
        ("multi", "signal"): multi_signal + WIGGLE,
        ("multi", "noise"): others[1] + WIGGLE,
    }
    return growth.judge(found, others[0] + WIGGLE[1], grid)


@pytest.mark.parametrize(
    ("constant", "agrees"), [(0.97, True), (0.955, True), (0.94, False), (0.5, False)]
)
def test_bound_of_lemma_5_2(constant: float, agrees: bool) -> None:
    row = growth_rows(constant, 0.5)[0]
    assert row.agrees == agrees
    assert spread(row.per_seed) == (pytest.approx(constant), pytest.approx(0.01))
    assert row.note.startswith("asymptotic: ")


def test_a_constant_that_is_approached_must_rise_as_sigma_0_falls() -> None:
    grid = growth.GrowthGrid(rates=(0.1,), starts=(1.0, 0.1, 0.01))

    def noise_row(*means: float):
        values = {(m, w): np.full((3, 3), 0.5) for m in ("single", "multi") for w in ("signal",)}
        values |= {("multi", "noise"): np.full((3, 3), 0.9)}
        values |= {("single", "noise"): np.array([[mean] * 3 for mean in means])}
        return growth.judge(values, np.full(3, 0.5), grid)[0]

    assert noise_row(0.9, 0.95, 0.97).agrees
    assert not noise_row(0.95, 0.9, 0.97).agrees
    assert noise_row(0.99, 0.98, 0.97).agrees, "it is not approached from below"
    assert not noise_row(0.99, 0.98, 0.97).note.startswith("asymptotic")


@pytest.mark.parametrize(
    ("signal", "noise", "verdicts"),
    [(0.52, 1.06, [True, True]), (0.54, 1.0, [False, True]), (0.5, 1.08, [True, False])],
)
def test_upper_bounds_of_the_appendix(signal: float, noise: float, verdicts: list[bool]) -> None:
    rows = growth_rows(0.97, 0.5, (signal, noise))
    assert [row.source for row in rows[2:4]] == ["Lemma C.4", "Lemma D.9"]
    assert [row.agrees for row in rows[2:4]] == verdicts


@pytest.mark.parametrize(("constant", "agrees"), [(0.5, True), (0.46, False)])
def test_bound_of_lemma_5_4(constant: float, agrees: bool) -> None:
    assert growth_rows(0.96, constant)[1].agrees == agrees


def test_which_grows_faster() -> None:
    grid = growth.GrowthGrid(rates=(0.1,), starts=(1.0, 0.1))

    def rows(noise: float, signal: float):
        found = {("single", "signal"): 0.5, ("multi", "noise"): 0.9}
        found |= {("single", "noise"): noise, ("multi", "signal"): signal}
        return growth.judge({k: v + WIGGLE for k, v in found.items()}, WIGGLE[1] + 0.5, grid)[4:]

    single, multi = rows(0.9, 0.5)
    # Signal over noise: 1.25 x 0.5 / 0.9 and 3.75 x 0.5 / 0.9.
    assert spread(single.per_seed)[0] == pytest.approx(1.25 * 0.5 / 0.9, rel=1e-3)
    assert spread(multi.per_seed)[0] == pytest.approx(3.75 * 0.5 / 0.9, rel=1e-3)
    assert single.agrees
    assert multi.agrees
    assert not rows(0.6, 0.5)[0].agrees, "0.625 > 0.6: signal wins"
    assert not rows(0.9, 0.2)[1].agrees, "0.75 < 0.9: noise wins"


def test_epoch_reaching() -> None:
    assert first_stage.epoch_reaching(np.array([0.1, 0.4, 0.5, 0.3]), 0.5) == 2
    assert first_stage.epoch_reaching(np.array([0.1, 0.4]), 0.5) == math.inf


def test_winner_is_the_slowest_sample_or_the_fastest_neuron() -> None:
    gamma, rho = grown(1.1, 0.3), grown(1.25, 0.02)
    np.testing.assert_allclose(first_stage.winner(planted_run("single", gamma, rho)), 0.5 * rho)
    np.testing.assert_allclose(first_stage.winner(planted_run("multi", gamma, rho)), gamma)


@pytest.mark.parametrize(
    ("ratios", "agrees"),
    [
        ([[0.5, 0.7], [0.7, 0.7]], True),
        ([[0.1, 0.1], [0.7, 1.0]], True),
        ([[0.5, 1.1], [0.7, 0.7]], False),
        ([[0.5, math.inf], [0.7, 0.7]], False),
    ],
)
def test_t1_is_an_upper_bound(ratios: list[list[float]], agrees: bool) -> None:
    t1 = np.array([30.0, 60.0])
    assert first_stage.judge("single", t1, np.array(ratios) * t1[:, None]).agrees == agrees


def test_predicted_t1_at_figure_1() -> None:
    # The specification's printed values.
    assert first_stage.predicted_t1(TrainConfig()) == pytest.approx(34.7, abs=0.05)
    assert first_stage.predicted_t1(TrainConfig(modality="multi")) == pytest.approx(27, abs=0.05)


def test_numbers_are_shown_with_their_digits() -> None:
    values = (0.0, 0.0312, -1.23e-5, 99.5, 591.4, math.nan)
    told = ["0.000", "0.031", "-1.2e-05", "99.500", "591", "nan"]
    assert [shown(value) for value in values] == told


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


@pytest.mark.parametrize(("exponent", "agrees"), [(0.4, True), (0.55, False), (-0.4, False)])
def test_scale_with_sigma_0(exponent: float, agrees: bool) -> None:
    starts = (1.0, 0.1, 0.01)
    values = np.array([[s**exponent] * 2 for s in starts])
    row = scale.with_sigma_0(starts, values, Scaled(noise_rate=0.08))
    assert row.agrees == agrees
    assert row.per_seed == pytest.approx((exponent, exponent), abs=1e-12)


def test_rate_ratio_is_that_of_the_lemmas() -> None:
    # 2.21 / (C_mu n SNR^2) for small steps: 1.06 / 0.48 over it.
    slow = Scaled(noise_rate=1e-6, c_mu=4.0, n_snr2=1.25)
    assert scale.rate_ratio(slow) == pytest.approx(1.06 / 0.48 / 5, rel=1e-5)
    # The level that noise reaches when the signal's guaranteed growth has led to 20.
    point = Scaled(n=400, noise_rate=0.08, noise_start=0.001)
    cfg = point.config(modality="multi")
    unit = {"eta": cfg.eta, "m": cfg.m, "tau": cfg.tau_value}
    growth_ = noise_growth(sigma_xi=1.0, d=cfg.d, n=cfg.n, rate=1.06, **unit)
    level = 0.001 * growth_ ** first_stage.predicted_t1(cfg)
    bound = 0.001 * (20 / (cfg.sigma_0 * cfg.mu_norm)) ** scale.rate_ratio(point)
    assert level == pytest.approx(bound, rel=1e-9)


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


def test_neurons_positive_in_both_modalities() -> None:
    def parts(start: list[float], end: list[float]):
        return torch.tensor(start), torch.zeros(4), torch.tensor(end)

    a = parts([1.0, 1.0, -1.0, 1.0], [1.0, 1.0, 1.0, -1.0])
    b = parts([1.0, -1.0, -1.0, 1.0], [1.0, 1.0, 1.0, -1.0])
    assert signs.both_positive(a, b) == (2, 3, 1)
    assert not signs.unchanged_set([(2, 3, 1)], 10).agrees
    assert not signs.unchanged_set([(2, 2, 1)], 10).agrees, "as many, but others"
    assert signs.unchanged_set([(2, 2, 0), (1, 1, 0)], 10).agrees


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

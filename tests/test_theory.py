"""Closed forms of the paper at Figure 1's settings, their limits, and what is refused."""

from __future__ import annotations

import ast
import math
import sys
from pathlib import Path

import pytest

from mmcl_fast import theory

NOISE = {"eta": 0.01, "sigma_xi": 1.0, "d": 2000, "n": 100, "m": 50, "tau": 0.02}
SIGNAL = {"eta": 0.01, "mu_norm": 5.0, "m": 50, "tau": 0.02}
T1_SINGLE = {**NOISE, "sigma_0": 0.001}
T1_MULTI = {**SIGNAL, "sigma_0": 0.001, "c_mu": 3.0}
ASSUMPTION = {
    "n": 100,
    "d": 2000,
    "m": 50,
    "eta": 0.01,
    "sigma_0": 0.001,
    "sigma_xi": 1.0,
    "sigma_eps": 0.1,
    "mu_norm": 5.0,
    "mu_b_norm": 15.0,
}


def test_signal_to_noise_ratio():
    sizes = {"mu_norm": 5.0, "sigma_xi": 2.0, "d": 2500}
    assert theory.snr(**sizes) == pytest.approx(0.05, rel=1e-15)
    assert theory.n_snr2(n=100, **sizes) == pytest.approx(0.25, rel=1e-15)
    assert theory.snr(mu_norm=0.0, sigma_xi=1.0, d=1) == 0.0


def test_first_stage_ends_where_the_lemmas_say():
    # The specification's printed values, to their printed digits.
    assert theory.t1_single(**T1_SINGLE) == pytest.approx(34.7, abs=0.05)
    assert theory.t1_multi(**T1_MULTI) == pytest.approx(27.0, abs=0.05)


def test_first_stage_is_the_growth_compounded():
    # Starting at the initial activation and growing by the lemma's factor, T1 steps reach 20.
    factor = theory.noise_growth(**NOISE, rate=theory.SINGLE_RATE)
    start = 0.001 * math.sqrt(2000)
    assert start * factor ** theory.t1_single(**T1_SINGLE) == pytest.approx(20.0, rel=1e-12)
    factor = theory.signal_growth(**SIGNAL, c_mu=3.0, rate=theory.MULTI_RATE)
    assert 0.005 * factor ** theory.t1_multi(**T1_MULTI) == pytest.approx(20.0, rel=1e-12)


def test_growth_factors():
    assert theory.noise_growth(**NOISE) == pytest.approx(1.2, rel=1e-15)
    assert theory.noise_growth(**{**NOISE, "sigma_xi": 2.0}) == pytest.approx(1.8, rel=1e-15)
    assert theory.signal_growth(**SIGNAL) == pytest.approx(1.25, rel=1e-15)
    assert theory.signal_growth(**SIGNAL, c_mu=3.0) == pytest.approx(1.75, rel=1e-15)
    assert theory.signal_growth(**{**SIGNAL, "mu_norm": 0.0}) == 1.0


def test_small_rates_do_not_round_away():
    # 1 + rate is 1 in floating point; T1 must still scale as 1 / rate.
    slow = theory.t1_single(**{**T1_SINGLE, "eta": 1e-20})
    slower = theory.t1_single(**{**T1_SINGLE, "eta": 1e-21})
    assert slower / slow == pytest.approx(10.0, rel=1e-12)


def test_stage_that_is_over_or_never_ends():
    assert theory.t1_single(**{**T1_SINGLE, "sigma_0": 1.0}) == 0.0
    assert theory.t1_multi(**{**T1_MULTI, "sigma_0": 4.0}) == 0.0  # exactly 20
    assert theory.t1_multi(**{**T1_MULTI, "sigma_0": 3.99}) > 0.0
    assert theory.t1_multi(**{**T1_MULTI, "mu_norm": 0.0}) == math.inf
    assert theory.t1_multi(**{**T1_MULTI, "c_mu": 0.0}) == math.inf
    # The start underflows and the rate does not.
    assert theory.t1_multi(**{**T1_MULTI, "mu_norm": 1e-100, "sigma_0": 1e-300}) == math.inf


def test_convergence_time():
    sizes = {"eta": 0.01, "sigma_xi": 2.0, "d": 2000, "n": 100, "m": 50}
    assert theory.convergence_time(loss=0.25, **sizes) == pytest.approx(62.5 * 5, rel=1e-14)


def test_initial_loss():
    assert theory.initial_loss(n_plus=50, n_minus=50) == pytest.approx(math.log(51), rel=1e-15)
    assert theory.initial_loss(n_plus=50, n_minus=50, multi=True) == 2 * math.log(51)
    uneven = (1 * math.log(4) + 3 * math.log(2)) / 4
    assert theory.initial_loss(n_plus=1, n_minus=3) == pytest.approx(uneven, rel=1e-15)
    few = theory.initial_loss(n_plus=9, n_minus=5, negatives_per_sample=2)
    assert few == pytest.approx(math.log(3), rel=1e-15)
    assert theory.initial_loss(n_plus=4, n_minus=0) == 0.0


def test_assumption_at_figure_1():
    checks = theory.assumption_4_1(**ASSUMPTION)
    failing = {c.condition: (c.left, c.right) for c in checks if not c.holds}
    assert failing == {
        "d >= n^2": (2000.0, 10_000.0),
        "d >= n / (sigma_0 sigma_xi)": (2000.0, pytest.approx(100_000.0)),
        "d >= 1 / (sigma_0 |mu|)^2": (2000.0, pytest.approx(40_000.0)),
    }
    assert len(checks) == 13


def test_the_proofs_ask_for_more_than_the_assumption():
    known = {c.condition for c in theory.assumption_4_1(**ASSUMPTION)}

    def added(**given):
        checks = theory.assumption_4_1(**ASSUMPTION, **given)
        return {c.condition: c for c in checks if c.condition not in known}

    (step,) = added(tau=0.02).values()  # Figure 1: its noise grows by 0.2 an epoch
    assert (step.left, step.right) == (0.01, pytest.approx(0.01 / 0.2 / 12, rel=1e-12))
    assert not step.holds
    assert next(iter(added(tau=0.2 * 12 * 0.0201).values())).holds
    single, multi = added(delta=0.01).values()
    assert single.right == pytest.approx(2500 * math.log(400), rel=1e-12)
    assert multi.right == pytest.approx(1_280_000 * math.log(400), rel=1e-12)
    assert not single.holds
    assert not multi.holds
    assert len(added(tau=0.02, delta=0.01)) == 3


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"eta": 2.1}, {"eta <= m / |mu|^2"}),
        ({"eta": 2.6}, {"eta <= m / |mu|^2", "eta <= n m / (sigma_xi^2 d)"}),
        ({"sigma_0": 0.03}, {"sigma_0 <= 1 / (sigma_xi sqrt(d))"}),
        ({"sigma_0": 0.21}, {"sigma_0 <= 1 / (sigma_xi sqrt(d))", "sigma_0 <= 1 / |mu|"}),
        ({"sigma_eps": 1.1}, {"sigma_eps <= sigma_xi"}),
        ({"sigma_eps": 5.1}, {"sigma_eps <= sigma_xi", "sigma_eps <= |mu|"}),
        ({"order_one": 1.2}, {"n SNR^2 = Theta(1)"}),
        ({"n": 7}, {"n SNR^2 = Theta(1)"}),
        ({"mu_b_norm": 13.0}, {"C_mu >= 2.66"}),
        ({"m": 0.5, "eta": 0.001}, {"m >= 1"}),
        ({"n": 0.5, "eta": 1e-4, "sigma_xi": 0.07, "sigma_eps": 0.01}, {"n >= 1"}),
        ({"d": 10_000, "sigma_0": 0.01}, set()),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_assumption_breaks_one_condition_at_a_time(change, broken):
    checks = theory.assumption_4_1(**{**ASSUMPTION, **change})
    assert {
        c.condition for c in checks if not c.holds and not c.condition.startswith("d ")
    } == broken


def test_large_dimension_meets_the_conditions_on_d():
    checks = theory.assumption_4_1(**{**ASSUMPTION, "d": 10_000, "sigma_0": 0.01})
    assert all(c.holds for c in checks)


def held(checks: list[theory.Check]) -> list[bool]:
    return [check.holds for check in checks]


def test_windows_of_the_proofs():
    """Appendices C.1.3 and D.1.3, written out here."""
    assert held(theory.lemma_5_2_window(n_snr2=1.8)) == [True]
    assert held(theory.lemma_5_2_window(n_snr2=1.81)) == [False]
    corner = theory.lemma_5_4_window(n_snr2=1.7, c_mu=2.66)
    assert held(corner) == [True, True]
    assert 2.21 / corner[1].left + 0.01 <= 0.5
    assert held(theory.lemma_5_4_window(n_snr2=1.69, c_mu=2.8)) == [False, True]
    assert held(theory.lemma_5_4_window(n_snr2=1.7, c_mu=2.65)) == [True, False]
    assert pytest.approx(0.5, abs=1e-4) == 2.21 / theory.MIN_C_MU_N_SNR2_MULTI + 0.01
    # Figure 1 is inside the first window alone.
    assert held(theory.lemma_5_2_window(n_snr2=1.25)) == [True]
    assert held(theory.lemma_5_4_window(n_snr2=1.25, c_mu=3.0)) == [False, False]


REFUSED = [
    (theory.lemma_5_2_window, {"n_snr2": 1.0}, "n_snr2", 0.0),
    (theory.lemma_5_4_window, {"n_snr2": 1.0, "c_mu": 3.0}, "c_mu", math.nan),
    (theory.t1_single, T1_SINGLE, "sigma_0", 0.0),
    (theory.t1_single, T1_SINGLE, "tau", -1.0),
    (theory.t1_single, T1_SINGLE, "d", math.inf),
    (theory.t1_multi, T1_MULTI, "mu_norm", -5.0),
    (theory.t1_multi, T1_MULTI, "eta", math.nan),
    (theory.t1_multi, T1_MULTI, "c_mu", math.inf),
    (theory.noise_growth, NOISE, "n", 0),
    (theory.signal_growth, SIGNAL, "m", 0),
    (theory.assumption_4_1, ASSUMPTION, "mu_norm", 0.0),
    (theory.assumption_4_1, ASSUMPTION, "sigma_eps", -0.1),
    (theory.assumption_4_1, ASSUMPTION, "order_one", 0.5),
    (theory.assumption_4_1, ASSUMPTION, "tau", 0.0),
    (theory.assumption_4_1, ASSUMPTION, "delta", 0.0),
    (theory.assumption_4_1, ASSUMPTION, "delta", 1.0),
    (theory.initial_loss, {"n_plus": 3, "n_minus": 3}, "negatives_per_sample", 0),
    (theory.initial_loss, {"n_plus": 3, "n_minus": 3}, "n_plus", -1),
]


@pytest.mark.parametrize(
    ("function", "good", "name", "value"), REFUSED, ids=lambda v: getattr(v, "__name__", None)
)
def test_out_of_range_is_refused_by_name(function, good, name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected .* got {value!r}"):
        function(**{**good, name: value})


def test_empty_data_has_no_initial_loss():
    with pytest.raises(ValueError, match=r"^n: expected"):
        theory.initial_loss(n_plus=0, n_minus=0)


def test_imports_the_standard_library_only():
    tree = ast.parse(Path(theory.__file__).read_text(encoding="utf-8"))
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert {name.partition(".")[0] for name in imported} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", ["snr", "t1_single", "t1_multi", "convergence_time"])
def test_a_config_is_no_argument(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}: expected arguments by name \(.*got a Config"):
        getattr(theory, name)(type("Config", (), {})())

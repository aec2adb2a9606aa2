"""The theory's numbers for maps: their signs, and where there is none."""

import math

import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.experiments.borders import conditions, log_t1_ratio, margin, theory_point
from mmcl_fast.theory import t1_multi, t1_single

CFG = TrainConfig()


def number(modality: str = "multi", **changes: object) -> float:
    point = theory_point(CFG.replace(**changes))
    assert point is not None
    return log_t1_ratio(point, modality)


def test_the_ratio_is_of_the_lemmas() -> None:
    shared = {"sigma_0": 0.001, "eta": 0.01, "m": 50, "tau": 0.02}
    noise = t1_single(sigma_xi=1.0, d=2000, n=100, **shared)
    for modality, c_mu in (("single", 1.0), ("multi", 3.0)):
        signal = t1_multi(mu_norm=5.0, c_mu=c_mu, **shared)
        assert number(modality) == pytest.approx(math.log(noise / signal))


@pytest.mark.parametrize(
    "changes",
    [
        {"q": 2},
        {"optimizer": "adam"},
        {"mu_norm": 0.0},
        {"mu_b_norm": 0.0},
        {"negatives": "all"},
        {"spurious_norm": 1.0},
    ],
    ids=str,
)
def test_settings_of_which_the_theory_says_nothing(changes: dict[str, object]) -> None:
    assert theory_point(CFG.replace(**changes)) is None


def test_a_stage_that_is_over_at_the_start_has_no_ratio() -> None:
    assert math.isnan(number(sigma_0=10.0))


def test_a_step_too_small_to_be_added_leaves_an_infinite_ratio_or_none() -> None:
    assert math.isnan(number(eta=1e-320, mu_norm=1e-3, mu_b_norm=1e-3))


def test_no_augmentation_noise_meets_its_conditions() -> None:
    point = theory_point(CFG.replace(sigma_eps=0.0, d=10**9, eta=1e-9, sigma_0=1e-6))
    assert point is not None
    assert math.isfinite(margin(point, "multi"))
    assert (margin(point, "multi") >= 0) == all(c.holds for c in conditions(point, "multi"))

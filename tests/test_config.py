"""Settings: types, ranges, combinations, presets; every refusal names what, expected and got."""

import copy
import math

import numpy as np
import pytest

from mmcl_fast import ConfigError, TrainConfig
from mmcl_fast.config_presets import PRESETS

WRONG = [
    ({"n": 1}, "n: expected an integer >= 2, got 1"),
    ({"n": 2.5}, "n: expected an integer, got 2.5"),
    ({"n": True}, "n: expected an integer, got True"),
    ({"m": 0}, "m: expected an integer >= 1, got 0"),
    ({"q": 0}, "q: expected an integer in 1 .. 16, got 0"),
    ({"tau": 0.0}, "tau: expected a finite number > 0, got 0.0"),
    ({"tau": -1.0}, "tau: expected a finite number > 0, got -1.0"),
    ({"eta": math.nan}, "eta: expected a finite number > 0, got nan"),
    ({"eta": math.inf}, "eta: expected a finite number > 0, got inf"),
    ({"sigma_eps": -0.1}, "sigma_eps: expected a finite number >= 0, got -0.1"),
    ({"seed": -1}, "seed: expected an integer in 0 .. 2^64 - 1, got -1"),
    ({"seed": 2**64}, "seed: expected an integer in 0 .. 2^64 - 1, got 18446744073709551616"),
    ({"modality": "both"}, "modality: expected one of single, multi, got 'both'"),
    ({"modality": ["single"]}, "modality: expected one of single, multi, got ['single']"),
    ({"sigma_xi": "1"}, "sigma_xi: expected a number, got '1'"),
    ({"optimizer": "sgd"}, "batch_size: expected an integer with optimizer sgd, got None"),
    ({"batch_size": 10}, "batch_size: expected None with full-batch optimizer gd, got 10"),
    ({"optimizer": "sgd", "batch_size": 101}, "batch_size: expected at most n = 100, got 101"),
    ({"probe_on": "test"}, "probe_on: expected one of train, ood, got 'test'"),
    ({"probe_on": "ood", "probe_samples": 1}, "probe_samples: expected an integer >= 2, got 1"),
    ({"probe_samples": 20}, "probe_samples: expected None with probe_on train"),
    ({"modality": "multi", "augment": "per_epoch"}, "augment: expected fixed with modality multi"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=lambda x: str(x)[:40])
def test_refusals(settings: dict, message: str) -> None:
    for make in (TrainConfig, TrainConfig().replace):
        with pytest.raises(ConfigError) as caught:
            make(**settings)
        assert str(caught.value).startswith(message)
        assert isinstance(caught.value, ValueError)


def test_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="sigma0: unknown setting; did you mean sigma_0"):
        TrainConfig().replace(sigma0=1.0)


def test_an_unknown_setting_is_no_list_of_all() -> None:
    shown = "nearest: classes, label_noise, epochs; mmcl train --help lists all"
    with pytest.raises(ConfigError, match=f"^loss: unknown setting; {shown}$"):
        TrainConfig(loss=1)
    with pytest.raises(ConfigError, match=r"^zzz: unknown setting; mmcl train --help lists all$"):
        TrainConfig().replace(zzz=1)


def test_numpy_numbers_become_plain_ones() -> None:
    cfg = TrainConfig(n=np.int64(30), eta=np.float32(0.5), seed=np.uint64(2**63), mu_norm=3)
    assert (cfg.n, cfg.eta, cfg.seed, cfg.mu_norm) == (30, 0.5, 2**63, 3.0)
    assert {type(v) for v in (cfg.n, cfg.seed)} == {int}
    assert {type(v) for v in (cfg.eta, cfg.mu_norm)} == {float}


def test_defaults_that_follow_others() -> None:
    cfg = TrainConfig(m=40, d=300, sigma_xi=2.0, seed=7)
    assert cfg.tau_value == 1 / 40
    assert (cfg.d_b_value, cfg.sigma_xi_b_value) == (300, 2.0)
    assert (cfg.data_key, cfg.init_key) == (7, 7)
    assert cfg.replace(data_seed=1, init_seed=2).init_key == 2


def test_presets_are_the_papers_figure_1() -> None:
    stated = {
        "d": 2000, "n": 100, "n_test": 200, "m": 50, "eta": 0.01, "epochs": 200, "mu_norm": 5.0,
        "mu_b_norm": 15.0, "nu_norm": 2.0, "sigma_xi": 1.0, "q": 1,
    }  # fmt: skip
    for preset in PRESETS.values():
        assert {k: getattr(preset, k) for k in stated} == stated
        assert preset.sigma_eps**2 == pytest.approx(0.01)
    assert PRESETS["figure1-multi"].is_multi


def test_what_is_no_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^momentun: unknown setting; did you mean momentum\?"):
        TrainConfig(momentun=0.5)
    with pytest.raises(ConfigError, match=r"^lr: unknown setting; did you mean eta\?"):
        TrainConfig().replace(lr=0.5)
    with pytest.raises(ConfigError, match=r"TrainConfig: expected settings by name, .* got 100"):
        TrainConfig(100)
    cfg = TrainConfig(m=3)
    assert copy.copy(cfg) == copy.deepcopy(cfg) == cfg

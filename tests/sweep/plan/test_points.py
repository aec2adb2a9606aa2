"""Points: derived axes, and settings of which nothing is left to a default."""

import contextlib
import math

import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.derived import DERIVED, derived
from mmcl_fast.errors import ConfigError, EngineRefusedError
from mmcl_fast.sweep.plan.points import resolve_point

BASE = TrainConfig(n=12, d=60, m=4, epochs=6, data="reduced", sigma_xi=0.7)


@pytest.mark.parametrize("name", DERIVED)
def test_a_derived_axis_gives_what_it_says(name: str) -> None:
    cfg = resolve_point(BASE, {name: 0.37, "m": 8, "n": 20, "d": 300})
    assert derived(cfg)[name] == pytest.approx(0.37, rel=1e-14)
    assert getattr(cfg, DERIVED[name]) != getattr(BASE, DERIVED[name])
    # All else is as in the base.
    changed = {k for k, v in resolve_point(BASE, {}).to_dict().items() if v != getattr(cfg, k)}
    assert changed == {DERIVED[name], "m", "n", "d", "d_b", "tau"}


def test_derived_quantities_by_hand() -> None:
    cfg = TrainConfig(
        n=10, d=400, m=5, mu_norm=3.0, mu_b_norm=6.0, sigma_xi=0.5, tau=0.25, eta=0.01, sigma_0=0.02
    )
    assert derived(cfg) == pytest.approx(
        {
            "snr": 0.3,  # 3 / (0.5 * 20)
            "n_snr2": 0.9,
            "c_mu": 2.0,
            "noise_rate": 0.01 * 100 / (10 * 5 * 0.25),
            "noise_start": 0.02 * 10,
        },
        rel=1e-14,
    )


def test_the_second_signal_follows_the_first() -> None:
    for point in ({"snr": 0.5, "c_mu": 2.0}, {"c_mu": 2.0, "snr": 0.5}):
        cfg = resolve_point(BASE, point)
        assert cfg.mu_norm == pytest.approx(0.5 * 0.7 * math.sqrt(60), rel=1e-14)
        assert cfg.mu_b_norm == 2 * cfg.mu_norm


def test_the_rate_takes_the_temperature_of_its_width() -> None:
    for m in (4, 8):
        cfg = resolve_point(BASE, {"m": m, "noise_rate": 0.3})
        assert cfg.tau == 1 / m
        assert cfg.eta == pytest.approx(0.3 * 12 / (0.49 * 60), rel=1e-14)


def test_nothing_is_left_open() -> None:
    cfg = resolve_point(TrainConfig(optimizer="momentum", sigma_xi=0.5), {})
    assert (cfg.tau, cfg.d_b, cfg.sigma_xi_b, cfg.momentum) == (1 / 50, 2000, 0.5, 0.9)
    assert "auto" not in (cfg.engine, cfg.device)
    assert resolve_point(TrainConfig(n=5000, d=100), {}).engine == "primal"
    assert resolve_point(TrainConfig(), {"engine": "gram"}).engine == "gram"


@pytest.mark.parametrize("sigma", [1e-200, 1e-160, 1e150])
def test_no_arithmetic_error_at_the_ends_of_the_range(sigma: float) -> None:
    cfg = resolve_point(BASE.replace(dtype="float64", sigma_xi=sigma), {})
    assert all(not math.isnan(x) for x in derived(cfg).values())
    for name in DERIVED:
        with contextlib.suppress(ConfigError):  # and nothing else
            resolve_point(cfg, {name: 1e-3})


def test_without_a_signal_the_ratio_is_undefined() -> None:
    assert math.isnan(derived(resolve_point(BASE, {"snr": 0.0}))["c_mu"])


MISTAKES = [
    ({"snr": 1e40}, ConfigError, r"mu_norm: .*\(at snr = 1e\+40\)"),
    ({"m": 0, "n": 20}, ConfigError, r"m: expected an integer >= 1, got 0 \(at m = 0, n = 20\)"),
    (
        {"augment": "per_epoch", "modality": "multi"},
        ConfigError,
        r"augment: expected fixed .*\(at augment = per_epoch, modality = multi\)",
    ),
    (
        {"engine": "native", "optimizer": "momentum"},
        EngineRefusedError,
        r"engine native: .*\(at engine = native, optimizer = momentum\)",
    ),
]


@pytest.mark.parametrize(("point", "kind", "message"), MISTAKES)
def test_mistakes_name_the_point(point: dict, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        resolve_point(BASE, point)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device: expected cpu .*at device = cuda"):
        resolve_point(BASE, {"device": "cuda"})
    assert resolve_point(BASE, {"device": "auto"}).device == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert resolve_point(BASE, {"device": "auto"}).device == "cuda"
    assert resolve_point(BASE, {"device": "cpu"}).device == "cpu"

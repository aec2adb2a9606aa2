"""SNR, n SNR^2 and C_mu in place of the settings that they determine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmcl_fast import ConfigError, TrainConfig, theory
from mmcl_fast.cli.command_line import run
from mmcl_fast.sweep import make_plan

BASE = TrainConfig(n=40, d=500, sigma_xi=0.7)


@pytest.mark.parametrize(
    "given",
    [{"snr": 0.3}, {"n_snr2": 2.0, "c_mu": 3.0}, {"c_mu": 1.5, "snr": 0.1, "d": 900},
     {"noise_rate": 0.1, "noise_start": 0.02, "m": 7}],
)  # fmt: skip
def test_replace_sets_what_a_sweep_sets(given: dict) -> None:
    cfg = BASE.replace(**given)
    (point,) = make_plan(BASE, grid={name: [value] for name, value in given.items()}).points
    for name in ("mu_norm", "mu_b_norm", "eta", "sigma_0", "d", "m"):
        assert getattr(cfg, name) == getattr(point, name), name
    for name in ("snr", "n_snr2", "c_mu"):
        if name in given:
            assert getattr(cfg, name) == pytest.approx(given[name], rel=1e-12)
    sizes = {"mu_norm": cfg.mu_norm, "sigma_xi": cfg.sigma_xi, "d": cfg.d}
    assert cfg.snr == pytest.approx(theory.snr(**sizes), rel=1e-12)
    assert cfg.n_snr2 == pytest.approx(theory.n_snr2(n=cfg.n, **sizes), rel=1e-12)
    assert cfg.tau is None, "a default stays one"


WRONG = [
    ({"snr": 0.1, "mu_norm": 3.0}, "snr: expected snr or mu_norm, which set mu_norm, got both"),
    ({"snr": 0.1, "n_snr2": 3.0}, "n_snr2: expected n_snr2 or snr, which set mu_norm, got both"),
    ({"c_mu": -1.0}, "c_mu: expected a finite number >= 0, got -1.0"),
    ({"snr": "x"}, "snr: expected a finite number >= 0, got 'x'"),
    ({"snr": float("inf")}, "snr: expected a finite number >= 0, got inf"),
    ({"noise_rate": 0.0}, "eta: expected a finite number > 0, got 0.0"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=str)
def test_mistakes(given: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BASE.replace(**given)
    assert str(caught.value) == message


def test_a_config_is_made_of_settings() -> None:
    with pytest.raises(ConfigError, match="snr: expected mu_norm, which it determines, or Train"):
        TrainConfig(snr=0.1)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small = ["train", "--n", "20", "--d", "100", "--m", "4", "--epochs", "2", "--out"]
    assert run([*small, str(tmp_path / "a"), "--snr", "0.5", "--c-mu", "3"]) == 0
    config = json.loads((tmp_path / "a" / "run.json").read_text())["config"]
    assert (config["mu_norm"], config["mu_b_norm"]) == (5.0, 15.0)
    for flags in (["--snr", "1", "--mu-norm", "2"], ["--n-snr2", "1", "--snr", "2"]):
        assert run([*small, str(tmp_path / "b"), *flags]) == 2
        assert "which set mu_norm, got both" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()

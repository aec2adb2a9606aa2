"""Orthogonal data are the limit that they claim to be, and every engine trains on them."""

from __future__ import annotations

import pytest
import torch

from mmcl_fast import ConfigError, TrainConfig, train
from mmcl_fast.data import sample
from mmcl_fast.data.signal_noise.synthetic import draw_augmented

BASE = TrainConfig(
    n=12, m=6, d=900, n_test=15, epochs=20, sigma_xi=0.5, sigma_eps=0.2, sigma_0=0.05, eta=0.05,
    data="orthogonal", dtype="float64", device="cpu", evaluate_every=20,
)  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [{}, {"modality": "multi", "d_b": 400}, {"augment": "per_epoch"}, {"q": 2, "eta": 0.01}],
    ids=["single", "multi", "fresh_views", "quadratic"],
)
@pytest.mark.parametrize("engine", ["gram", "primal"])
def test_engines_agree(engine: str, settings: dict) -> None:
    cfg = BASE.replace(**settings)
    ours, wanted = (train(cfg.replace(engine=name)) for name in (engine, "reference"))
    for name in ("loss", "signal", "noise", "ood_accuracy"):
        found, exact = getattr(ours, name), getattr(wanted, name)
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-13, equal_nan=True)
    with pytest.raises(ConfigError, match=r"expected explicit data, got orthogonal"):
        ours.weights()


def test_the_native_engine_trains_on_them() -> None:
    cfg = BASE.replace(dtype="float32", sigma_0=0.01)
    ours, plain = train(cfg.replace(engine="native")), train(cfg.replace(engine="reference"))
    exact = train(cfg.replace(engine="reference", dtype="float64")).loss
    error, error_plain = ((run.loss.double() - exact).abs().max() for run in (ours, plain))
    assert error <= 2 * (error_plain + torch.finfo(torch.float32).eps * exact.max())


def test_inner_products_are_those_of_the_limit() -> None:
    cfg = BASE.replace(stop_gradient="none", view_scale=0.5, spurious_norm=2.0)
    data, square = sample(cfg), 900 * 0.25
    same = torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(data.noise @ data.noise.T, square * same)
    torch.testing.assert_close(data.augmented @ data.noise.T, 0.5 * square * same)
    views = data.augmented @ data.augmented.T
    torch.testing.assert_close(views, (0.25 * square + 900 * 0.04) * same)
    vectors = torch.cat([data.noise, data.augmented, data.test_noise])
    assert not (vectors @ torch.stack([data.mu, data.nu, data.spurious]).T).any()
    assert not (data.test_noise @ torch.cat([data.noise, data.augmented]).T).any()


def test_fresh_views_meet_the_initial_weights_anew() -> None:
    cfg = BASE.replace(augment="per_epoch")
    data = sample(cfg)
    first, second = (
        (draw_augmented(cfg, data.noise, epoch) - data.noise) @ data.weights.T for epoch in (0, 1)
    )
    # 72 pairs of independent numbers: |correlation| beyond 0.46 has probability 5e-5.
    assert torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].abs() < 0.46
    deviation = 0.05 * 0.2 * 900**0.5
    both = torch.cat([first, second]).square().mean().sqrt() / deviation
    assert abs(both - 1) < 0.24  # four standard deviations of 144 squares: 6e-5

"""A third modality: the loss is summed over pairs, and every result has its share of it."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl_fast import ConfigError, DataError, TrainConfig, reference, train, train_many
from mmcl_fast.data import from_arrays, sample
from mmcl_fast.data.signal_noise.discrete import positives
from mmcl_fast.metrics import margin, modality_gap
from mmcl_fast.training import Run
from mmcl_fast.training.epoch_info import RunState

BASE = TrainConfig(
    n=14, d=60, d_b=50, d_c=40, m=6, n_test=9, epochs=12, eta=0.05, modality="multi",
    mu_c_norm=4.0, sigma_xi_c=0.8, evaluate_every=6, device="cpu",
)  # fmt: skip
PAIRS = list(combinations("abc", 2))


@pytest.mark.parametrize("engine", ["native", "gram", "reference"])
def test_the_loss_is_the_sum_of_the_papers_over_pairs(engine: Any) -> None:
    cfg = BASE.replace(engine=engine, dtype="float32" if engine == "native" else "float64")
    data = sample(cfg)
    features = {}
    for name in "abc":
        suffix = "" if name == "a" else f"_{name}"
        mu, noise, w = (getattr(data, f"{field}{suffix}") for field in ("mu", "noise", "weights"))
        signal = torch.outer(data.labels, mu)
        features[name] = torch.cat([(x @ w.T).relu() for x in (signal, noise)], dim=1)
    masks = reference.negative_pairs(data.labels, data.labels, every_label=False)
    expected = sum(
        reference.multi_modal_loss(features[x], features[y], masks, 1.0 / cfg.m) for x, y in PAIRS
    )
    found = train(cfg).loss[0]
    torch.testing.assert_close(found, expected, rtol=1e-6 if engine == "native" else 1e-12, atol=0)


def test_a_modality_of_nothing_but_its_own_noise_still_counts() -> None:
    two = BASE.replace(mu_c_norm=None, d_c=None, sigma_xi_c=None)
    without_signal = BASE.replace(mu_c_norm=0.0)
    assert two.modalities == ("a", "b")
    assert without_signal.modalities == ("a", "b", "c")
    assert not two.is_variant
    assert without_signal.is_variant
    assert train(two).loss[0] < train(without_signal).loss[0]


def test_pairs_of_each_modality_are_mismatched_on_their_own() -> None:
    data = sample(BASE.replace(pair_noise=0.5, spurious_c_norm=1.0))
    assert data.positive_labels is not None
    assert data.positive_labels_c is not None
    assert data.positive_attributes_c is not None
    assert not torch.equal(data.positive_labels, data.labels)
    assert not torch.equal(data.positive_labels, data.positive_labels_c)


def test_rows_of_each_modality_are_those_of_its_positives() -> None:
    cfg = BASE.replace(pair_noise=0.5)
    data, in_order = sample(cfg), sample(BASE)
    for suffix, stream in (("_b", "pair_noise"), ("_c", "pair_noise_c")):
        order = positives(cfg, stream)
        assert order is not None
        mine, own = (getattr(x, f"noise{suffix}") for x in (data, in_order))
        assert torch.equal(mine, own[order])
        labels = data.positive_labels if suffix == "_b" else data.positive_labels_c
        assert torch.equal(labels, data.labels[order])


def test_a_run_has_the_results_of_all_modalities(tmp_path: Path) -> None:
    run = train(BASE.replace(coefficients_every=4, spurious_norm=1.0, spurious_c_norm=2.0))
    again = Run.load(run.save(tmp_path / "run"))
    for name in ("gamma_c", "rho_c", "gamma_spurious_c", "gamma_c_curve", "rho_c_curve"):
        value = getattr(run, name)
        assert value is not None
        assert value.abs().max() > 0
        assert torch.equal(getattr(again, name), value)
    assert run.weights("c").shape == (6, 40)
    assert torch.equal(again.weights("c"), run.weights("c"))
    assert run.encoder("c")(torch.zeros(2, 40), torch.zeros(2, 40)).shape == (2, 6)


def test_two_modalities_have_no_third() -> None:
    run = train(BASE.replace(mu_c_norm=None, d_c=None, sigma_xi_c=None))
    assert run.gamma_c is None
    with pytest.raises(ConfigError, match="modality: expected a or b, got c"):
        run.weights("c")


def test_a_run_is_the_same_alone_and_among_others() -> None:
    configs = [BASE.replace(seed=s, mu_c_norm=norm) for s in range(2) for norm in (0.0, 3.0)]
    for one, together in zip(configs, train_many(configs), strict=True):
        alone = train(one)
        assert alone.config.engine == "native"
        for name in ("loss", "gamma", "gamma_b", "gamma_c", "rho_c"):
            assert torch.equal(getattr(alone, name), getattr(together, name)), name


def test_a_metric_sees_the_third_modality() -> None:
    def size_of_features(state: RunState) -> float:
        return float(state.features("c").max())

    names = {"c": size_of_features, "gap": modality_gap, "margin": margin}
    run = train(BASE, metrics=names)
    data = sample(BASE)
    assert data.noise_c is not None
    assert data.weights_c is not None
    vectors = torch.cat([data.mu_c * data.labels[:, None], data.noise_c])
    largest = (vectors @ data.weights_c.T).max()
    torch.testing.assert_close(run.metrics["c"][0], largest.double(), rtol=1e-6, atol=0)
    # Both of modalities A and B: at the start those of training on two.
    two = train(
        BASE.replace(mu_c_norm=None, d_c=None, sigma_xi_c=None), metrics=names | {"c": margin}
    )
    for name in ("gap", "margin"):
        assert run.metrics[name][0] == two.metrics[name][0]
        assert run.metrics[name][-1] != two.metrics[name][-1]


def test_own_arrays_of_the_third_modality() -> None:
    noise_c = torch.randn(14, 40, generator=torch.Generator().manual_seed(1))
    data = from_arrays(BASE, noise_c=noise_c)
    assert torch.equal(data.noise_c, noise_c)
    run = train(BASE, data={"noise_c": noise_c, "mu_c": torch.ones(40)})
    assert run.config.mu_c_norm == pytest.approx(40**0.5)
    with pytest.raises(DataError, match=r"data.noise_c: expected shape \[14, 40\]"):
        from_arrays(BASE, noise_c=noise_c[:3])
    two = BASE.replace(mu_c_norm=None, d_c=None, sigma_xi_c=None)
    with pytest.raises(DataError, match=r"data\.noise_c: expected none without mu_c_norm, got one"):
        from_arrays(two, noise_c=noise_c)
    # Data of three modalities also serve training of two.
    assert torch.equal(train(two, data=sample(BASE)).loss, train(two).loss)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"modality": "single", "mu_c_norm": 1.0}, "mu_c_norm: expected None with modality single"),
    ({"d_c": 30}, "d_c: expected None without modality C, got 30; give .* mu_c_norm"),
    ({"sigma_xi_c": 0.5}, "sigma_xi_c: expected None without modality C"),
    ({"spurious_c_norm": 0.5}, "spurious_c_norm: expected 0.0 without modality C"),
    ({"mu_c_norm": -1.0}, "mu_c_norm: expected a finite number >= 0"),
    ({"mu_c_norm": 1.0, "d_c": 2, "classes": 3}, "d_c: expected more than 3, the signals, got 2"),
    ({"mu_c_norm": 1e30}, r"mu_c_norm: expected mu_c_norm\^2 to be finite in float32"),
    ({"mu_c_norm": 1.0, "data": "streamed"}, "data: expected explicit, .* with mu_c_norm"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=lambda x: str(x)[:30])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**({"modality": "multi"} | settings))

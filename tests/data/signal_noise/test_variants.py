"""What model variants draw beyond the paper's data, against the stream's oracle in NumPy.

`docs/stream.md`, section 5, says what is drawn where. Statistical tests have fixed seeds; each
refuses at p < 1e-4.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from mmcl_fast import ConfigError, DataError, TrainConfig
from mmcl_fast.data import sample
from mmcl_fast.data.signal_noise.discrete import class_thresholds, draw_targets, positives
from mmcl_fast.data.signal_noise.sampling import check_drawable, undrawable
from mmcl_fast.data.signal_noise.synthetic import (
    draw_augmented,
)
from mmcl_fast.data.stream import chi_numpy, stream_numpy

P_VALUE = 1e-4
KEY, INIT_KEY = 11, 5
BASE = TrainConfig(
    n=40, d=300, m=4, n_test=30, sigma_xi=1.7, sigma_eps=0.3, sigma_0=0.02, mu_norm=4.0,
    mu_b_norm=14.0, nu_norm=2.5, data_seed=KEY, init_seed=INIT_KEY, dtype="float64", device="cpu",
)  # fmt: skip
OOD = {"probe_on": "ood", "probe_samples": 17}


def words(stream: str, count: int, epoch: int = 0) -> list[int]:
    return [int(w) for w in stream_numpy.words(KEY, stream, (1, 1, count), epoch=epoch)[0, 0]]


def normals(key: int, stream: str, shape: tuple[int, int], epoch: int = 0) -> np.ndarray:
    z = stream_numpy.standard_normal(key, stream, (1, *shape), epoch=epoch)[0]
    return z.astype(np.float64)


def oracle_class(word: int, weights: list[Fraction]) -> int:
    """The class whose interval of [0, 1) holds word / 2^32; ends rounded down to words."""
    sums = list(accumulate(weights))
    ends = [2**32 * s // sums[-1] for s in sums]
    return next(k for k, end in enumerate(ends) if word < end)


def oracle_attributes(stream: str, signs: list[int], correlation: float) -> list[float]:
    below = Fraction(1 + correlation) / 2 * 2**32 // 1
    drawn = words(stream, len(signs))
    return [float(s if w < below else -s) for s, w in zip(signs, drawn, strict=True)]


def oracle_positives(n: int, count: int) -> list[int]:
    drawn = words("pair_noise", n)
    chosen = sorted(range(n), key=lambda i: (drawn[i], i))[:count]
    found = list(range(n))
    for before, after in zip([chosen[-1], *chosen[:-1]], chosen, strict=True):
        found[after] = before
    return found


@pytest.mark.parametrize(("classes", "power"), [(2, 0), (7, 0), (7, 1), (1024, 2)])
def test_thresholds_are_those_of_exact_arithmetic(classes: int, power: int) -> None:
    sums = list(accumulate(Fraction(1, (k + 1) ** power) for k in range(classes)))
    exact = [2**32 * s // sums[-1] for s in sums[:-1]]
    assert class_thresholds(classes, float(power)).tolist() == exact


def test_thresholds_of_any_exponent() -> None:
    share = np.arange(1, 31) ** -0.7
    exact = 2.0**32 * np.cumsum(share)[:-1] / share.sum()
    assert np.abs(class_thresholds(30, 0.7) - exact).max() <= 1
    # Of a steep prior the last classes have no word: every word is of class 0.
    assert class_thresholds(4, 1e308).tolist() == [2**32] * 3


@pytest.mark.parametrize("power", [0, 1])
@pytest.mark.parametrize("modality", ["single", "multi"])
def test_classes_and_their_signals(modality: str, power: int) -> None:
    cfg = BASE.replace(classes=5, prior_exponent=power, modality=modality, d_b=90, **OOD)
    data = sample(cfg)
    prior, uniform = [Fraction(1, (k + 1) ** power) for k in range(5)], [Fraction(1)] * 5
    for name, count, weights in (
        ("labels", 40, prior), ("test_labels", 30, uniform), ("probe_labels", 17, uniform),
    ):  # fmt: skip
        found = getattr(data, name)
        assert found.dtype == torch.float64
        assert found.tolist() == [oracle_class(w, weights) for w in words(name, count)], name
    for name, norm, d in (("mu", 4.0, 300), ("nu", 2.5, 300), ("mu_b", 14.0, 90)):
        if (signals := getattr(data, name)) is not None:
            assert torch.equal(signals, norm * torch.eye(5, d, dtype=torch.float64)), name
    assert (data.mu_b is None) == (modality == "single")


@pytest.mark.parametrize("classes", [None, 5])
@pytest.mark.parametrize("correlation", [0.8, -1.0, 1.0])
def test_spurious_attributes(correlation: float, classes: int | None) -> None:
    cfg = BASE.replace(
        classes=classes, spurious_norm=3.0, spurious_correlation=correlation, modality="multi",
        spurious_b_norm=0.5, d_b=90, **OOD,
    )  # fmt: skip
    data = sample(cfg)
    for name, stream, rho in (
        ("labels", "attributes", correlation),
        ("test_labels", "test_attributes", -correlation),
        ("probe_labels", "probe_attributes", -correlation),
    ):
        labels = [int(y) for y in getattr(data, name)]
        signs = labels if classes is None else [1 - 2 * (y % 2) for y in labels]
        assert getattr(data, stream).tolist() == oracle_attributes(stream, signs, rho)
    # The axis after those of the signals; mu~ of two labels is along the second.
    first = classes or 1
    assert data.spurious.nonzero().tolist() == [[first]]
    assert data.spurious[first] == 3.0
    first_b = classes or 2
    assert data.spurious_b.nonzero().tolist() == [[first_b]]
    assert data.spurious_b[first_b] == 0.5
    given = sample(cfg.replace(spurious_correlation_test=0.25))
    labels = [int(y) for y in given.test_labels]
    signs = labels if classes is None else [1 - 2 * (y % 2) for y in labels]
    assert given.test_attributes.tolist() == oracle_attributes("test_attributes", signs, 0.25)


@pytest.mark.parametrize(("share", "count"), [(0.01, 2), (0.0625, 2), (0.3, 12), (1.0, 40)])
def test_pair_noise_hands_positives_on_in_a_cycle(share: float, count: int) -> None:
    order = oracle_positives(40, count)
    plain, noisy = (
        BASE.replace(spurious_norm=1.0),
        BASE.replace(spurious_norm=1.0, pair_noise=share),
    )
    own, data = sample(plain), sample(noisy)
    assert positives(noisy).tolist() == order
    assert sum(i != j for i, j in enumerate(order)) == count
    assert torch.equal(data.augmented, own.augmented[order])
    assert torch.equal(data.positive_labels, own.labels[order])
    assert torch.equal(data.positive_attributes, own.attributes[order])
    for name in ("labels", "noise", "attributes", "test_attributes", "weights"):
        assert torch.equal(getattr(data, name), getattr(own, name)), name
    own, data = (sample(cfg.replace(modality="multi")) for cfg in (plain, noisy))
    assert torch.equal(data.noise_b, own.noise_b[order])
    assert own.positive_labels is None


def test_pair_noise_of_views_of_an_epoch() -> None:
    cfg = BASE.replace(pair_noise=0.5, augment="per_epoch", view_scale=0.75)
    noise, order = sample(cfg).noise, oracle_positives(40, 20)
    eps = torch.from_numpy(normals(KEY, "augment", (40, 300), 3) * 0.3)
    assert torch.equal(draw_augmented(cfg, noise, 3), (noise * 0.75 + eps)[order])


@pytest.mark.parametrize("draw", ["fixed", "per_epoch"])
def test_label_noise(draw: str) -> None:
    cfg = BASE.replace(objective="logistic", label_noise=0.3, label_noise_draw=draw)
    data = sample(cfg)
    below = Fraction(0.3) * 2**32 // 1
    for epoch in (0, 7):
        drawn = words("label_noise", 40, epoch if draw == "per_epoch" else 0)
        wanted = [-y if w < below else y for y, w in zip(data.labels.tolist(), drawn, strict=True)]
        assert draw_targets(cfg, data.labels, epoch).tolist() == wanted
        if epoch == 0:
            assert data.targets.tolist() == wanted
    for rate, sign in ((0.0, 1), (1.0, -1)):
        every = sample(BASE.replace(objective="logistic", label_noise=rate))
        assert torch.equal(every.targets, sign * every.labels)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scaled_and_masked_views(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # 40 rows in pieces of three: no piece ends with the rows.
    monkeypatch.setattr("mmcl_fast.data.signal_noise.views.MASK_ELEMENTS", 1000)
    cfg = BASE.replace(view_scale=0.7, view_mask=0.4, dtype=dtype)
    number = np.float32 if dtype == "float32" else np.float64
    noise = sample(cfg).noise
    for fresh in (False, True):
        each = cfg.replace(augment="per_epoch" if fresh else "fixed")
        for epoch in (0, 4):
            at = epoch if fresh else 0
            eps = normals(KEY, "augment", (40, 300), at).astype(number) * number(0.3)
            word = stream_numpy.words(KEY, "view_mask", (1, 40, 300), epoch=at)[0]
            wanted = noise.numpy() * number(0.7) + eps
            wanted[word < int(Fraction(0.4) * 2**32)] = 0
            assert torch.equal(draw_augmented(each, noise, epoch), torch.from_numpy(wanted))
        assert torch.equal(sample(each).augmented, draw_augmented(each, noise, 0))
    share = (sample(cfg).augmented == 0).double().mean().item()
    assert abs(share - 0.4) < 4 * (0.4 * 0.6 / 12_000) ** 0.5  # one false alarm in 15 000


def factor(key: int, stream: str, first: int, count: int, cfg: TrainConfig) -> Tensor:
    """Rows of the Bartlett factor behind the coordinates of the signals, with these, unscaled."""
    rows, free = np.zeros((count, cfg.columns)), cfg.d - cfg.axes
    width = min(cfg.columns, cfg.axes + first + count)
    z = normals(key, stream, (count, width))
    degrees = np.arange(free - first, free - first - count, -1)
    held = degrees[degrees > 0].astype(float)
    chi = chi_numpy.chi(held, np.arange(first, first + len(held)), key, "chi")
    for i in range(count):
        left = min(cfg.axes + first + i, cfg.columns)
        rows[i, :left] = z[i, :left]
        if first + i < free and left < cfg.columns:
            rows[i, left] = chi[i]
    return torch.from_numpy(rows)


REDUCED = [
    ({"stop_gradient": "none"}, "the views' noise is a part of the factor"),
    ({"stop_gradient": "none", "d": 60}, "fewer coordinates than rows"),
    ({"classes": 3, "spurious_norm": 2.0}, "four explicit coordinates"),
    ({"classes": 3, "stop_gradient": "none", "pair_noise": 0.2}, "both"),
]


@pytest.mark.parametrize("settings", [s for s, _ in REDUCED], ids=[why for _, why in REDUCED])
def test_reduced_data(settings: dict) -> None:
    cfg = BASE.replace(data="reduced", d=10**6).replace(**settings)
    data, n, m = sample(cfg), cfg.n, cfg.m
    in_span = cfg.stop_gradient == "none"
    assert cfg.columns == cfg.axes + min(n + m + in_span * n, cfg.d - cfg.axes)
    assert torch.equal(data.noise, factor(KEY, "noise", 0, n, cfg) * 1.7)
    assert torch.equal(data.weights, factor(INIT_KEY, "init", n, m, cfg) * 0.02)
    if in_span:
        eps = factor(KEY, "augment", n + m, n, cfg) * 0.3
    else:
        eps = torch.from_numpy(normals(KEY, "augment", (n, cfg.columns)) * 0.3)
    order = oracle_positives(n, 8) if cfg.pair_noise else list(range(n))
    assert torch.equal(data.augmented, (data.noise + eps)[order])
    test = normals(KEY, "test_noise", (cfg.n_test, cfg.columns)) * 1.7
    assert torch.equal(data.test_noise, torch.from_numpy(test))


@pytest.mark.parametrize("stop_gradient", ["key", "none"])
@pytest.mark.parametrize("modality", ["single", "multi"])
def test_orthogonal_data(modality: str, stop_gradient: str) -> None:
    cfg = BASE.replace(
        data="orthogonal", modality=modality, stop_gradient=stop_gradient, d=900, d_b=400,
        sigma_xi_b=0.6, **OOD,
    )  # fmt: skip
    data, n, m = sample(cfg), cfg.n, cfg.m
    in_span = modality == "single" and stop_gradient == "none"
    before = 1 + n + in_span * n
    assert cfg.columns == cfg.columns_b == before + m

    def along(rows: int, first: int, value: float) -> Tensor:
        return value * torch.eye(rows, cfg.columns, dtype=torch.float64).roll(first, 1)

    def last(stream: str, count: int, scale: float) -> Tensor:
        z = normals(KEY, stream, (count, m)) * scale
        return torch.nn.functional.pad(torch.from_numpy(z), (before, 0))

    assert torch.equal(data.noise, along(n, 1, 30.0 * 1.7))
    assert torch.equal(data.test_noise, last("test_noise", cfg.n_test, 1.7))
    assert torch.equal(data.probe_noise, last("probe_noise", 17, 1.7))
    for side, stream, root in (("", "init", 30.0), ("_b", "init_b", 20.0)):
        if side and modality == "single":
            continue
        z = torch.from_numpy(normals(INIT_KEY, stream, (m, before)))
        wanted = torch.nn.functional.pad(z, (0, m)) + along(m, before, root)
        assert torch.equal(getattr(data, f"weights{side}"), wanted * 0.02)
        assert getattr(data, f"mu{side}").nonzero().tolist() == [[0]]
    if modality == "multi":
        assert torch.equal(data.noise_b, along(n, 1, 20.0 * 0.6))
        return
    eps = along(n, 1 + n, 30.0 * 0.3) if in_span else last("augment", n, 0.3)
    assert torch.equal(data.augmented, data.noise + eps)


def test_classes_without_a_negative_are_refused() -> None:
    cfg = BASE.replace(n=3, classes=3, prior_exponent=2.0, label_noise=0.0)
    labels = {s: sample_labels(cfg.replace(data_seed=s)) for s in range(40)}
    alone = [s for s, y in labels.items() if len(set(y)) == 1]
    assert 3 < len(alone) < 37, "premise"
    configs = [cfg.replace(data_seed=s) for s in labels]
    assert undrawable(configs) == alone
    message = rf"seed {alone[0]} draws 3 labels that are all {labels[alone[0]][0]:.0f}; take"
    for refuses in (check_drawable, sample):
        with pytest.raises(DataError, match=f"labels: expected at least two classes, {message}"):
            refuses(configs[alone[0]])
    assert undrawable([c.replace(negatives="all") for c in configs]) == alone
    signs = [c.replace(classes=None, prior_exponent=0.0) for c in configs]
    refused = undrawable(signs)
    assert refused != alone
    pairs = [c for both in zip(configs, signs, strict=True) for c in both]
    assert undrawable(pairs) == sorted([2 * k for k in alone] + [2 * k + 1 for k in refused])


def sample_labels(cfg: TrainConfig) -> list[float]:
    weights = [Fraction(1, (k + 1) ** int(cfg.prior_exponent)) for k in range(cfg.classes)]
    drawn = stream_numpy.words(cfg.data_key, "labels", (1, 1, cfg.n))[0, 0]
    return [float(oracle_class(int(w), weights)) for w in drawn]


def test_frequencies_of_classes_and_attributes() -> None:
    cfg = BASE.replace(
        n=20_000, d=8, m=1, classes=6, prior_exponent=1.0, spurious_norm=1.0,
        spurious_correlation=0.3,
    )  # fmt: skip
    data = sample(cfg)
    share = 1 / np.arange(1, 7)
    counts = np.bincount(data.labels.long().numpy(), minlength=6)
    assert stats.chisquare(counts, 20_000 * share / share.sum()).pvalue > P_VALUE
    agrees = (data.attributes == 1 - 2 * (data.labels % 2)).sum().item()
    assert stats.binomtest(agrees, 20_000, 0.65).pvalue > P_VALUE


def test_fresh_views_in_the_span_need_coordinates_of_their_own() -> None:
    cfg = BASE.replace(stop_gradient="none", augment="per_epoch")
    assert sample(cfg).augmented.shape == (40, 300)
    for data in ("reduced", "orthogonal"):
        with pytest.raises(ConfigError, match=f"augment: expected fixed with .* data {data}"):
            cfg.replace(data=data)

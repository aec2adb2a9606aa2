"""Metrics of model variants, each against its formula, on made-up states and on runs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor

from mmcl_fast import ConfigError, TrainConfig, metrics, train
from mmcl_fast.data import sample
from mmcl_fast.data.signal_noise.signals import signal_patches

TINY = TrainConfig(n=4, d=7, m=4, n_test=6, dtype="float64", device="cpu")


def state(cfg: TrainConfig, **data: Tensor) -> Any:
    """What metrics read of a run, of random numbers."""
    torch.manual_seed(1)
    kinds = {"a": torch.rand(cfg.n, 2 * cfg.m), "b": torch.rand(cfg.n, 2 * cfg.m) - 0.3}
    kinds["view"] = kinds["b"]
    weights = torch.randn(cfg.m, cfg.d, dtype=torch.float64)
    embedded = torch.randn(cfg.n, cfg.m).double(), torch.randn(cfg.n_test, cfg.m).double()
    held = {"labels": torch.tensor([1.0, 1, -1, -1]), "positive_labels": None, "spurious": None}
    return SimpleNamespace(
        config=cfg,
        data=SimpleNamespace(**{**held, "probe_labels": None, **data}),
        features=lambda samples: kinds[samples].double(),
        stored_weights=lambda modality: weights,
        embeddings=lambda: embedded,
        probe_embeddings=lambda: embedded[0],
    )


def test_spurious_learning_is_that_of_its_signal() -> None:
    s = torch.randn(7, dtype=torch.float64)
    found = state(TINY.replace(spurious_norm=2.0), spurious=s)
    products = [abs((w @ s).item()) for w in found.stored_weights("a")]
    assert metrics.spurious_learning(found) == pytest.approx(max(products))
    with pytest.raises(ConfigError, match="spurious_learning: expected spurious_norm > 0, got 0"):
        metrics.spurious_learning(state(TINY))


def test_modality_gap() -> None:
    found = state(TINY.replace(modality="multi"))
    means = [sum(x / x.norm() for x in found.features(kind)) / 4 for kind in ("a", "b")]
    assert metrics.modality_gap(found) == pytest.approx((means[0] - means[1]).norm().item())
    with pytest.raises(ConfigError, match="modality_gap: expected modality multi, got single"):
        metrics.modality_gap(state(TINY))


def test_supervised_accuracy_is_of_the_output() -> None:
    labels = torch.tensor([1.0, -1, -1, 1, 1, -1])
    found = state(TINY.replace(objective="logistic"), test_labels=labels)
    signs = torch.tensor([1.0, 1, -1, -1])
    outputs = [(2 / 4 * (signs * h).sum()).item() for h in found.embeddings()[1]]
    right = [(f > 0) == (y > 0) for f, y in zip(outputs, labels.tolist(), strict=True)]
    assert metrics.supervised_accuracy(found) == sum(right) / 6
    assert sum(right) not in (0, 3, 6)
    with pytest.raises(ConfigError, match="supervised_accuracy: expected objective logistic"):
        metrics.supervised_accuracy(state(TINY))


def with_classes() -> Any:
    cfg = TINY.replace(classes=3, n=40, n_test=30)
    mu = torch.eye(7, dtype=torch.float64)[:3] * 2
    labels, tested = torch.arange(40.0) % 3, torch.arange(30.0) % 3
    return state(cfg, mu=mu, labels=labels, test_labels=tested)


def test_signals_of_classes() -> None:
    found = with_classes()
    products = (2 * found.stored_weights("a")[:, :3]).tolist()
    assert metrics.majority_learning(found) == pytest.approx(max(abs(p[0]) for p in products))
    assert metrics.minority_learning(found) == pytest.approx(max(abs(p[2]) for p in products))
    shares = [max(x * x for x in p) / sum(x * x for x in p) for p in products]
    assert metrics.purity(found) == pytest.approx(sum(shares) / 4)
    for name in ("majority_learning", "minority_learning", "purity", "worst_class_accuracy"):
        with pytest.raises(ConfigError, match=f"{name}: expected classes, got None"):
            getattr(metrics, name)(state(TINY))


def test_worst_class_accuracy_is_scikit_learns() -> None:
    found = with_classes()
    embedded, tested = found.embeddings()
    one = LogisticRegression(C=1.0, tol=1e-12, solver="newton-cholesky")
    judge = OneVsRestClassifier(one).fit(embedded.numpy(), found.data.labels.numpy())
    right = judge.predict(tested.numpy()) == found.data.test_labels.numpy()
    expected = min(right[k::3].mean() for k in range(3))
    assert metrics.worst_class_accuracy(found) == pytest.approx(expected)
    on_training = judge.score(embedded.numpy(), found.data.labels.numpy())
    assert metrics.train_accuracy(found) == pytest.approx(on_training)
    embedded[0, 0] = math.inf
    assert math.isnan(metrics.worst_class_accuracy(found))


@pytest.mark.parametrize("classes", [None, 3])
def test_zero_shot_accuracy_is_of_the_nearest_signal(classes: int | None) -> None:
    cfg = TINY.replace(modality="multi", classes=classes, q=2)
    signals = 2 * torch.eye(7, dtype=torch.float64)[: classes or 1]
    tested = torch.arange(6.0) % 3 if classes else torch.tensor([1.0, -1, 1, -1, -1, -1])
    found = state(cfg, mu_b=signals if classes else signals[0], test_labels=tested)
    prompts = list(signals) if classes else [-signals[0], signals[0]]
    names = range(3) if classes else (-1, 1)
    by_b = [(found.stored_weights("b") @ x).clamp(min=0) ** 2 for x in prompts]
    cosine = torch.nn.functional.cosine_similarity
    right = 0
    for h, y in zip(found.embeddings()[1], tested.tolist(), strict=True):
        scores = [cosine(h, x, dim=0).item() for x in by_b]
        right += names[scores.index(max(scores))] == y
    assert metrics.zero_shot_accuracy(found) == pytest.approx(right / 6)
    assert 0 < right < 6
    with pytest.raises(ConfigError, match="zero_shot_accuracy: expected modality multi"):
        metrics.zero_shot_accuracy(state(TINY))


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_margin_has_the_negatives_and_the_similarity_of_the_run(modality: str) -> None:
    cfg = TINY.replace(modality=modality, negatives="all", similarity="cosine", pair_noise=0.5)
    found = state(cfg, positive_labels=torch.tensor([-1.0, 1, 1, -1]))
    query, positive = found.features("a"), found.features("b")
    key = positive if modality == "multi" else query

    def gap(among: Tensor, others: Tensor, right: Tensor, excluded) -> float:
        cosine = torch.nn.functional.cosine_similarity
        return min(
            (cosine(among[i], right[i], dim=0) - cosine(among[i], others[j], dim=0)).item()
            for i in range(4)
            for j in range(4)
            if not excluded(i, j)
        )

    gaps = [gap(query, key, positive, lambda i, j: i == j)]
    if modality == "multi":
        gaps.append(gap(key, query, query, lambda i, j: i == j))
    assert metrics.margin(found) == pytest.approx(min(gaps))


def test_the_keys_of_other_labels_are_those_of_the_positives() -> None:
    cfg = TINY.replace(modality="multi", pair_noise=0.5)
    y, of_keys = torch.tensor([1.0, 1, -1, -1]), torch.tensor([-1.0, 1, -1, 1])
    found = state(cfg, positive_labels=of_keys)
    score = (found.features("a") @ found.features("b").T / 4).tolist()
    gaps = [
        min(score[i][i] - score[i][j], score[j][j] - score[i][j])
        for i in range(4)
        for j in range(4)
        if i != j and y[i] != of_keys[j]  # a positive is no negative, whatever its label
    ]
    assert metrics.margin(found) == pytest.approx(min(gaps))
    assert metrics.margin(found) != pytest.approx(metrics.margin(state(cfg)))
    found.features = lambda samples: torch.eye(4, 8, dtype=torch.float64)
    assert metrics.margin(found) == 1 / 4


def test_metrics_of_the_papers_model_refuse_others() -> None:
    noisy = state(TINY.replace(pair_noise=0.5))
    for name in ("gradient_norm", "hessian_eigenvalue"):
        with pytest.raises(ConfigError, match=f"{name}: expected the paper's loss, pair_noise = 0"):
            getattr(metrics, name)(noisy)
    third = state(TINY.replace(modality="multi", mu_c_norm=0.0))  # of no signal, too
    for name in ("gradient_norm", "hessian_eigenvalue"):
        with pytest.raises(ConfigError, match=f"{name}: expected .*, mu_c_norm = None, got 0"):
            getattr(metrics, name)(third)
    for name in ("alignment", "margin"):
        with pytest.raises(ConfigError, match="objective: expected contrastive for a metric of"):
            getattr(metrics, name)(state(TINY.replace(objective="logistic")))
    with pytest.raises(ConfigError, match="sign_flips: expected classes None, got 3"):
        metrics.sign_flips(with_classes())


def test_dead_neurons_are_dead_on_every_patch() -> None:
    found = state(TINY.replace(spurious_norm=1.0, n=2, m=3))
    features = torch.zeros(2, 9)
    features[1, [2, 5]] = 1.0  # neuron 2 on the signal's patch and on the spurious one
    found.features = lambda samples: features
    assert metrics.dead_neuron_fraction(found) == pytest.approx(2 / 3)


def test_metrics_of_a_run_are_those_of_its_weights() -> None:
    cfg = TrainConfig(
        n=24, d=60, m=6, n_test=20, epochs=3, sigma_0=0.05, dtype="float64", device="cpu",
        modality="multi", classes=3, spurious_norm=3.0, spurious_b_norm=1.0, pair_noise=0.3,
        engine="gram",
    )  # fmt: skip
    names = ("spurious_learning", "modality_gap", "majority_learning", "purity", "margin")
    run = train(cfg, metrics={name: getattr(metrics, name) for name in names})
    data, weights = sample(cfg), {kind: run.weights(kind) for kind in ("a", "b")}
    products = weights["a"] @ data.mu.T
    squares = products.square()
    sides = []
    for kind, noise in (("a", data.noise), ("b", data.noise_b)):
        patches = [patch.rows() for patch in signal_patches(data, kind)]
        sides.append(torch.cat([(x @ weights[kind].T).relu() for x in (*patches, noise)], dim=1))
    unit = [x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in sides]
    score = (sides[0] @ sides[1].T / cfg.m).tolist()
    own, of_keys = data.labels.tolist(), data.positive_labels.tolist()
    gaps = [
        min(score[i][i], score[j][j]) - score[i][j]
        for i in range(cfg.n)
        for j in range(cfg.n)
        if own[i] != of_keys[j]
    ]
    expected = {
        "spurious_learning": (weights["a"] @ data.spurious).abs().max().item(),
        "modality_gap": (unit[0].mean(0) - unit[1].mean(0)).norm().item(),
        "majority_learning": products[:, 0].abs().max().item(),
        "purity": (squares.amax(1) / squares.sum(1)).mean().item(),
        "margin": min(gaps),
    }
    assert {name: run.metrics[name][-1].item() for name in names} == pytest.approx(expected)

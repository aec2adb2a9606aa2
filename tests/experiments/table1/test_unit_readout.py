"""Centroids and the short probe, against scikit-learn and Adam written out; accountings by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from mmcl_fast.data.mnist.files import load_digits
from mmcl_fast.experiments.table1.accounting import percent_right_0_vs_1
from mmcl_fast.experiments.table1.protocol import Table1Config
from mmcl_fast.experiments.table1.scores import Readout, accuracies, read_all
from mmcl_fast.experiments.table1.sets import make_sets
from mmcl_fast.experiments.table1.unit_readout import fit_centroids, fit_short_probe
from tests.support.digits import write_digits


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 4, 200)
    features = rng.normal(size=(200, 6)) + 1.5 * rng.normal(size=(4, 6))[targets]
    return torch.from_numpy(features), torch.from_numpy(targets)


def test_centroids_are_scikit_learns(drawn) -> None:
    features, targets = drawn
    found = fit_centroids(features, targets, 4)
    unit = features / features.norm(dim=1, keepdim=True)
    other = NearestCentroid().fit(unit.numpy(), targets.numpy())
    np.testing.assert_array_equal(found.scores(features).argmax(1), other.predict(unit.numpy()))
    # Scores are squared distances up to a term of the image alone.
    away = -torch.cdist(unit, torch.from_numpy(other.centroids_)).square()
    scores = found.scores(features)
    torch.testing.assert_close(scores - scores[:, :1], away - away[:, :1], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.scores(7 * features), scores)


def test_a_class_without_images_is_never_the_nearest(drawn) -> None:
    features, targets = drawn
    scores = fit_centroids(features, targets, 6).scores(features)
    assert (scores[:, 4:] == -torch.inf).all()
    assert not scores.isnan().any()


def test_the_short_probe_is_adam_written_out(drawn) -> None:
    features, targets = drawn
    batches = list(torch.randperm(200, generator=torch.manual_seed(0)).split(50)) * 2
    found = fit_short_probe(3 * features, targets, 4, rate=0.05, batches=batches)
    unit = (features / features.norm(dim=1, keepdim=True)).numpy()
    inputs = np.hstack([unit, np.ones((200, 1))])
    weight, mean, square = np.zeros((3, 7, 4))
    for step, index in enumerate(batches, 1):
        rows, wanted = inputs[index], np.eye(4)[targets[index]]
        shares = np.exp(rows @ weight)
        shares /= shares.sum(1, keepdims=True)
        gradient = rows.T @ (shares - wanted) / len(rows)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        scale = np.sqrt(square / (1 - 0.999**step)) + 1e-8
        weight = weight - 0.05 * mean / (1 - 0.9**step) / scale
    ours = torch.cat([found.weight, found.bias[None]])
    np.testing.assert_allclose(ours.numpy(), weight, rtol=0, atol=1e-9)


def test_accountings_by_hand() -> None:
    labels = {"rev": torch.tensor([0, 1, 1, 2])}
    scores = torch.tensor([[1.0, 0, 9], [0, 1, 0], [2, 1, 0], [0, 1, 2]])
    found = percent_right_0_vs_1({"rev": scores}, labels)
    assert found == {"rev_0_vs_1": pytest.approx(200 / 3)}  # of the three labelled 0 or 1
    ten = torch.nn.functional.pad(scores, (0, 7), value=-1.0)  # classes 2, 1, 0, 2
    readout = Readout({"rev": ten}, {"rev": scores[:, [1, 0]]})
    assert accuracies(readout, labels, tied=True) == {
        "rev": 50.0,
        "rev_tied": pytest.approx(100 / 3),
        "rev_0_vs_1": pytest.approx(100 / 3),
    }
    assert set(accuracies(Readout({"rev": ten}, None), labels, tied=False)) == {"rev"}


def test_0_against_1_is_fitted_to_images_labelled_so(tmp_path: Path) -> None:
    digits = load_digits(write_digits(tmp_path, 600, 200), "none")
    cfg = Table1Config(images=300, batch=50, few_labels=60, probe_iterations=1, few_epochs=2)
    sets = make_sets(digits, cfg, 0)
    features = {kind: data.images().mean((2, 3)) + 0.1 for kind, data in sets.items()}
    before = read_all(features, sets, cfg, 0)[0]
    others = sets["train"].labels >= 2
    features["train"] = torch.where(others[:, None], features["train"].flip(1), features["train"])
    after = read_all(features, sets, cfg, 0)[0]
    short = before["probe_few_epochs"], after["probe_few_epochs"]
    assert torch.equal(short[0].two["rev"], short[1].two["rev"])
    assert not torch.equal(short[0].ten["rev"], short[1].ten["rev"])
    assert before["probe_few_labels"].two is None
    for name in ("probe", "probe_no_l2", "centroids"):
        assert before[name].two is before[name].ten
    longer = read_all(features, sets, cfg.replace(few_epochs=3), 0)[0]["probe_few_epochs"]
    assert not torch.equal(longer.two["rev"], short[1].two["rev"])

"""The probe of K classes against scikit-learn's one-vs-rest, and itself alone."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from mmcl_fast.errors import DataError
from mmcl_fast.training import class_probe
from mmcl_fast.training.class_probe import class_accuracy
from mmcl_fast.training.linear_probe import ood_accuracy


def problems(classes: int, batch: int = 3, n: int = 60, p: int = 7) -> list[torch.Tensor]:
    """Overlapping clusters, so that accuracies are neither chance nor 1."""
    torch.manual_seed(classes)
    centres = 1.5 * torch.randn(classes, p, dtype=torch.float64)
    found = []
    for _ in range(2):
        labels = torch.arange(n).repeat(batch, 1) % classes
        found += [centres[labels] + torch.randn(batch, n, p, dtype=torch.float64), labels.float()]
    return found


@pytest.mark.parametrize("classes", [2, 5])
def test_agrees_with_scikit_learn(classes):
    x, y, test_x, test_y = problems(classes)
    ours = class_accuracy(x, y, test_x, test_y, classes=classes, l2=0.05)
    for k in range(len(x)):
        one = LogisticRegression(C=1 / (0.05 * x.shape[1]), tol=1e-12, solver="newton-cholesky")
        judge = OneVsRestClassifier(one).fit(x[k].numpy(), y[k].numpy())
        assert ours[k].item() == judge.score(test_x[k].numpy(), test_y[k].numpy())
    assert ours.mean() < 1
    assert ours.min() > 1 / classes


def test_two_classes_are_the_single_head():
    x, y, test_x, test_y = problems(2)
    single = ood_accuracy(x, 1 - 2 * y, test_x, 1 - 2 * test_y)
    assert torch.equal(class_accuracy(x, y, test_x, test_y, classes=2), single)


def test_a_class_without_samples_is_never_chosen_and_disturbs_no_other_problem():
    x, y, test_x, test_y = problems(4)
    alone = class_accuracy(x[1:], y[1:], test_x[1:], test_y[1:], classes=4)
    y[0, y[0] == 2] = 1.0
    found = class_accuracy(x, y, test_x, test_y, classes=4)
    assert torch.equal(found[1:], alone)
    assert found[0] <= 0.75  # a quarter of the test samples is of the class that has no head
    without = test_y[:1].clone()
    without[without == 2] = 1.0
    merged = class_accuracy(x[:1], y[:1], test_x[:1], without, classes=4)
    assert merged[0] > found[0]


def test_what_is_not_finite_is_nan_alone():
    x, y, test_x, test_y = problems(3)
    whole = class_accuracy(x, y, test_x, test_y, classes=3)
    x[1, 4, 2] = math.nan
    test_x[2, 0, 0] = math.inf
    found = class_accuracy(x, y, test_x, test_y, classes=3)
    assert found[0] == whole[0]
    assert found[1:].isnan().all()


def test_decisions_do_not_depend_on_how_many_classes_are_multiplied_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y, test_x, _ = problems(5)
    whole = class_probe.predicted_classes(x, y, test_x, classes=5)
    for heads in (1, 2):
        monkeypatch.setattr(class_probe, "CHUNK_ELEMENTS", heads * test_x[0].numel())
        assert torch.equal(class_probe.predicted_classes(x, y, test_x, classes=5), whole)


def test_refusals():
    x, y, test_x, test_y = problems(3)
    with pytest.raises(DataError, match=r"fitted_labels: expected classes 0 .. 1, got 2.0"):
        class_accuracy(x, y, test_x, test_y.clamp(max=1), classes=2)
    with pytest.raises(DataError, match=r"test_labels: expected classes 0 .. 2, got 0.5"):
        class_accuracy(x, y, test_x, test_y + 0.5, classes=3)
    with pytest.raises(DataError, match="two classes or more, got class 1 alone in problem 2"):
        class_accuracy(x, y.index_fill(0, torch.tensor(2), 1.0), test_x, test_y, classes=3)

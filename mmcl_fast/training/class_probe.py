"""The linear probe of K classes: one logistic head a class against the others.

The head of class k is `fit_logistic` with labels +1 for class k and -1 for all others; a sample's
class is that whose head has the largest decision value `<w_k, f> + b_k` (one-vs-rest, as
scikit-learn's `OneVsRestClassifier`). For two labels +-1 it is the single head of `ood_accuracy`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import DataError
from mmcl_fast.training.linear_probe import LogisticHead, fit_logistic, ood_accuracy


def class_accuracy(
    fitted_features: Tensor,
    fitted_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    classes: int,
    l2: float | None = None,
) -> Tensor:
    """Accuracy on the test features of one-vs-rest heads fitted to other features.

    Args:
        fitted_features: As for `predicted_classes`, as all but test_labels.
        fitted_labels: Class indices.
        test_features: Other features.
        test_labels: [B, n_test], class indices.
        classes: Number of classes.
        l2: As for `fit_logistic`, of each head.
    Returns: [B], float64; NaN where a problem has no predictions.
    Raises: As `predicted_classes`, and DataError where a test label is no class.
    """
    _check_classes("test_labels", test_labels, classes)
    given = (fitted_features, fitted_labels, test_features)
    predicted = predicted_classes(*given, classes=classes, l2=l2)
    share = (predicted == test_labels.to(predicted)).double().mean(1)
    return torch.where(predicted[:, 0].isfinite(), share, math.nan)


def predicted_classes(
    fitted_features: Tensor,
    fitted_labels: Tensor,
    test_features: Tensor,
    *,
    classes: int,
    l2: float | None = None,
) -> Tensor:
    """The class that one-vs-rest heads give to each test sample.

    A class of which a problem has no fitted sample has no head there, and is never chosen. Among
    equal decision values the class of the smallest index is chosen.

    Args:
        fitted_features: [B, n, p], floating.
        fitted_labels: [B, n], class indices 0 .. classes - 1 of any dtype, at least two of them in
            each problem.
        test_features: [B, n_test, p], floating.
        classes: Number of classes, K >= 2.
        l2: As for `fit_logistic`, of each head.
    Returns: [B, n_test], float64; NaN for problems with NaN or infinite features, or a head that
        did not converge.
    Raises: DataError: a label is no class, or a problem has one class only. ValueError, TypeError
        as `fit_logistic`.
    Cost: K heads a problem; memory of one problem in float64 and [B, n_test] decision values.
    """
    _check_classes("fitted_labels", fitted_labels, classes)
    for problem in (fitted_labels == fitted_labels[:, :1]).all(1).nonzero()[:1, 0].tolist():
        got = f"class {fitted_labels[problem, 0].item():g} alone in problem {problem}"
        raise DataError(f"fitted_labels: expected two classes or more, got {got}")
    batch, count, _ = test_features.shape
    best = torch.full((batch, count), -math.inf, dtype=torch.float64, device=test_features.device)
    chosen = torch.full_like(best, -1.0)
    valid = torch.ones(batch, dtype=torch.bool, device=test_features.device)
    for k in range(classes):
        own = fitted_labels == k
        present = own.any(1).nonzero()[:, 0].to(fitted_features.device)
        if not len(present):
            continue
        signs = torch.where(own, 1.0, -1.0).to(fitted_features.device)[present]
        head = fit_logistic(fitted_features[present], signs, l2=l2)
        decision = _decision_values(head, test_features[present])
        wins = decision > best[present]
        best[present] = torch.where(wins, decision, best[present])
        chosen[present] = torch.where(wins, float(k), chosen[present])
        valid[present] &= head.converged & decision.isfinite().all(1)
    return torch.where(valid[:, None], chosen, math.nan)


def probe_accuracy(
    cfg: TrainConfig,
    fitted_features: Tensor,
    fitted_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    checked: bool = False,
) -> Tensor:
    """Accuracy of the linear probe of a run's settings: one head, or one a class.

    Args:
        cfg: Settings; read are classes and probe_penalty.
        fitted_features: As for `ood_accuracy`.
        fitted_labels: [B, n], +-1 or class indices.
        test_features: As for `ood_accuracy`.
        test_labels: [B, n_test], +-1 or class indices.
        checked: As for `ood_accuracy`; classes are always checked.
    Returns: [B], float64.
    Raises: As `ood_accuracy` and `class_accuracy`.
    """
    given = (fitted_features, fitted_labels, test_features, test_labels)
    if cfg.classes is None:
        return ood_accuracy(*given, l2=cfg.probe_penalty, checked=checked)
    return class_accuracy(*given, classes=cfg.classes, l2=cfg.probe_penalty)


def _check_classes(name: str, labels: Tensor, classes: int) -> None:
    outside = (labels < 0) | (labels >= classes) | (labels != labels.round())
    for value in labels[outside][:1].tolist():
        raise DataError(f"{name}: expected classes 0 .. {classes - 1}, got {value!r}")


def _decision_values(head: LogisticHead, features: Tensor) -> Tensor:
    """`<w, f> + b` of each sample, [B, n_test], float64, in an order that no batch changes."""
    values = [
        (own.double() * weight).sum(1) + bias
        for own, weight, bias in zip(features, head.weight, head.bias, strict=True)
    ]
    return torch.stack(values)


__all__ = ["class_accuracy", "predicted_classes", "probe_accuracy"]

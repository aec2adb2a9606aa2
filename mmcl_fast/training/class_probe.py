"""The linear probe of K classes: one logistic head a class against the others.

The head of class k is `fit_logistic` with labels +1 for class k and -1 for all others; a sample's
class is that whose head has the largest decision value `<w_k, f> + b_k` (one-vs-rest, as
scikit-learn's `OneVsRestClassifier`). For two labels +-1 it is the single head of `ood_accuracy`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import DataError
from mmcl_fast.training.linear_probe import fit_logistic, ood_accuracy

CHUNK_ELEMENTS = 1 << 16  # products of features and weights at a time: what a core's cache holds


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
    Cost: K heads a problem; memory of [B, K, p] weights in float64, and of one problem's products.
    """
    _check_classes("fitted_labels", fitted_labels, classes)
    for problem in (fitted_labels == fitted_labels[:, :1]).all(1).nonzero()[:1, 0].tolist():
        got = f"class {fitted_labels[problem, 0].item():g} alone in problem {problem}"
        raise DataError(f"fitted_labels: expected two classes or more, got {got}")
    heads = _fit_heads(fitted_features, fitted_labels, classes, l2)
    chosen, valid = [], []
    for own, weight, bias in zip(test_features, heads.weight, heads.bias, strict=True):
        values = _decision_values(own, weight, bias)
        chosen.append(values.argmax(0))  # the first of equal values
        valid.append((values.isfinite().all(1) | (bias == -math.inf)).all())
    is_valid = heads.converged & torch.stack(valid)
    return torch.where(is_valid[:, None], torch.stack(chosen).double(), math.nan)


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


@dataclass(frozen=True)
class _ClassHeads:
    """Heads of B problems, one a class; of a class without samples the bias is -infinity."""

    weight: Tensor  # [B, K, p], float64
    bias: Tensor  # [B, K], float64
    converged: Tensor  # [B], bool: all that there are


def _fit_heads(features: Tensor, labels: Tensor, classes: int, l2: float | None) -> _ClassHeads:
    """The head of each class against all others."""
    (batch, _, p), device = features.shape, features.device
    weight = torch.zeros(batch, classes, p, dtype=torch.float64, device=device)
    bias = torch.full((batch, classes), -math.inf, dtype=torch.float64, device=device)
    converged = torch.ones(batch, dtype=torch.bool, device=device)
    for k in range(classes):
        own = labels == k
        has_samples = own.any(1)
        if not has_samples.any():
            continue
        # All problems as a rule: a slice then copies no features.
        at = slice(None) if has_samples.all() else has_samples.nonzero()[:, 0].to(device)
        signs = torch.where(own[has_samples], 1.0, -1.0).to(device)
        head = fit_logistic(features[at], signs, l2=l2)
        weight[at, k], bias[at, k] = head.weight, head.bias
        converged[at] &= head.converged
    return _ClassHeads(weight, bias, converged)


def _decision_values(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`<w_k, f> + b_k` of one problem [n_test, p], [K, n_test], float64.

    Each is a sum over a row of its own: neither the batch nor the number of classes changes it.
    """
    wide = features.double()
    at_once = max(1, CHUNK_ELEMENTS // wide.numel())
    values = [(wide * w.unsqueeze(1)).sum(2) for w in weight.split(at_once)]
    return torch.cat(values).add_(bias.unsqueeze(1))


__all__ = ["class_accuracy", "predicted_classes", "probe_accuracy"]

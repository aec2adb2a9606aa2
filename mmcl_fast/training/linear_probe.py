"""The logistic head of Figure 1, fitted for very many problems at once.

    minimise over (w, b)   mean_i log(1 + exp(-y_i (<w, f_i> + b))) + (l2 / 2) |w|^2

Method: Newton with Armijo backtracking in float64, in the form with fewer unknowns:
`mmcl_fast/training/linear_probe_newton.py` explains it. Small problems are solved one by one by the
native core (`csrc/core/head.h`), larger ones in batches by torch. Which, depends on a problem's
shape alone, so a result does not depend on the batch, and neither on the number of threads nor on
the machine's instruction set where the core computes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmcl_fast import _native
from mmcl_fast.errors import DataError
from mmcl_fast.training.linear_probe_newton import (
    GRADIENT_TOLERANCE,
    MAX_ITERATIONS,
    fit_chunks,
    score_chunks,
)

# Features of a problem that the native core takes: as far as it was compared with torch, which it
# beats the more the smaller a problem is (`python -m bench.cpu.choices`).
NATIVE_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class LogisticHead:
    """Fitted heads of B problems, float64 on the features' device.

    Attributes:
        weight: w, [B, p]; NaN for problems with NaN or infinite features.
        bias: b, [B]; NaN likewise.
        converged: [B], bool; True where the gradient met the tolerance of `fit_logistic`.
        iterations: Newton steps taken, [B], int64; 0 for NaN heads.
    """

    weight: Tensor
    bias: Tensor
    converged: Tensor
    iterations: Tensor


def fit_logistic(features: Tensor, labels: Tensor, *, l2: float | None = None) -> LogisticHead:
    """Logistic regression with an unpenalised intercept, for B problems.

    Converged means, with c the features less their mean over i and r_i = 1 - P(y_i | f_i): each
    component of the centred problem's gradient in w is at most 1e-10 * max |c| * mean r, and that
    in b at most 1e-10 * mean r: as exact for features of 1e-3 as of 1e3.

    Args:
        features: [B, n, p], floating, n >= 2, p >= 1, any strides and device.
        labels: [B, n] or [n] (shared), each +1 or -1, both present in every problem.
        l2: Penalty coefficient, > 0; default 1 / n, which is scikit-learn's C = 1.

    Returns: The heads. NaN or infinite features make that problem's head NaN, and no other.

    Raises:
        DataError: A label is not +1 or -1, or a problem has one label only (b has no optimum).
        ValueError: A shape or l2 is out of range.
        TypeError: Features are not floating.

    Numerics: float64 on the CPU whatever the input; bit-equal in any batch and on any threads.
    Cost: per step n p^2 + p^3 / 3 flop (p <= n) or n^3 / 3 (p > n, after n^2 p once). Memory per
        thread: that of 4 problems in float64, and in torch at least 16 MiB.
    """
    labels = _check(features, labels)
    _check_both_labels(labels)
    penalty = 1.0 / features.shape[1] if l2 is None else float(l2)
    if not (math.isfinite(penalty) and penalty > 0):
        raise ValueError(f"l2: expected a finite number > 0, got {l2!r}")
    return _fit(features, labels, penalty)


def accuracy(head: LogisticHead, features: Tensor, labels: Tensor) -> Tensor:
    """Fraction of samples that a head classifies rightly.

    As in scikit-learn a sample is +1 if <w, f> + b > 0, else -1: a score of exactly 0 means -1.

    Args:
        head: Heads of B problems.
        features: [B, n, p], floating; n >= 1 and need not be the n of the fit.
        labels: [B, n] or [n], each +1 or -1; one label only is fine.
    Returns: [B], float64; NaN where the head or a feature is NaN or infinite.
    Raises: As `fit_logistic`, and ValueError if B or p is not the head's.
    """
    labels = _check(features, labels)
    batch, _, p = features.shape
    if (expected := tuple(head.weight.shape)) != (batch, p):
        raise ValueError(f"features: expected B, p = {expected} as in head, got {(batch, p)}")
    return _score(head, features, labels)


def ood_accuracy(
    fitted_features: Tensor,
    fitted_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    l2: float | None = None,
    checked: bool = False,
) -> Tensor:
    """Accuracy on the test features of heads fitted to other features.

    Args:
        fitted_features: [B, n, p], floating: of training data, or of other samples of the test
            distribution (`TrainConfig.probe_on`).
        fitted_labels: [B, n] or [n], +1 or -1, both present.
        test_features: [B, n_test, p], floating.
        test_labels: [B, n_test] or [n_test], +1 or -1.
        l2: As for `fit_logistic`.
        checked: All of this is known to hold, of labels [B, n] and [B, n_test]: from one epoch to
            the next they stay, and threads that fit heads wait while somebody looks.
    Returns: [B], float64; NaN where features are NaN or infinite or the fit did not converge.
    Raises: DataError, ValueError, TypeError as `fit_logistic` and `accuracy`.
    """
    if checked:
        head = _fit(fitted_features, fitted_labels, l2 or 1.0 / fitted_features.shape[1])
        share = _score(head, test_features, test_labels)
    else:
        head = fit_logistic(fitted_features, fitted_labels, l2=l2)
        share = accuracy(head, test_features, test_labels)
    return torch.where(head.converged.to(share.device), share, math.nan)


def _fit(features: Tensor, labels: Tensor, l2: float) -> LogisticHead:
    n, p = features.shape[1:]
    fit = _fit_natively if n * p <= NATIVE_ELEMENTS else fit_chunks
    return LogisticHead(*(x.to(features.device) for x in fit(features, labels, l2)))


def _score(head: LogisticHead, features: Tensor, labels: Tensor) -> Tensor:
    n, p = features.shape[1:]
    score = _score_natively if n * p <= NATIVE_ELEMENTS else score_chunks
    return score(features, labels, head.weight, head.bias).to(features.device)


def _check(features: Tensor, labels: Tensor) -> Tensor:
    """Checks shapes, types and values; returns the labels as [B, n]."""
    if not features.is_floating_point():
        raise TypeError(f"features: expected a floating dtype, got {features.dtype}")
    if features.ndim != 3 or 0 in features.shape[1:]:
        raise ValueError(f"features: expected [B, n >= 1, p >= 1], got {tuple(features.shape)}")
    batch, n, _ = features.shape
    if labels.shape not in ((n,), (batch, n)):
        raise ValueError(f"labels: expected [{n}] or [{batch}, {n}], got {tuple(labels.shape)}")
    for value in labels[(labels != 1) & (labels != -1)][:1].tolist():
        raise DataError(f"labels: expected +1 or -1, got {value!r}")
    return labels.expand(batch, n)


def _check_both_labels(labels: Tensor) -> None:
    for problem in (labels == labels[:, :1]).all(1).nonzero()[:1, 0].tolist():
        got = f"{int(labels[problem, 0]):+d} in problem {problem}"
        raise DataError(f"labels: expected both +1 and -1 in every problem, got only {got}")


def _fit_natively(features: Tensor, labels: Tensor, l2: float) -> tuple[Tensor, ...]:
    batch, _, p = features.shape
    weight, bias = torch.empty(batch, p, dtype=torch.float64), torch.empty(batch).double()
    converged = torch.empty(batch, dtype=torch.bool)
    iterations = torch.empty(batch, dtype=torch.int64)
    out = (weight, bias, converged, iterations)
    _native.fit_heads(
        _floats(features),
        _plain(labels, torch.float32),
        *(x.numpy() for x in out),
        l2=l2,
        tolerance=GRADIENT_TOLERANCE,
        most_steps=MAX_ITERATIONS,
        threads=torch.get_num_threads(),
    )
    return out


def _score_natively(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    share = torch.empty(len(features), dtype=torch.float64)
    _native.score_heads(
        _floats(features),
        _plain(labels, torch.float32),
        _plain(weight, torch.float64),
        _plain(bias, torch.float64),
        share.numpy(),
        threads=torch.get_num_threads(),
    )
    return share


def _floats(features: Tensor) -> np.ndarray:
    """As they are if float32, else widened: exact either way."""
    narrow = features.dtype == torch.float32
    return _plain(features, torch.float32 if narrow else torch.float64)


def _plain(tensor: Tensor, dtype: torch.dtype) -> np.ndarray:
    found: np.ndarray = tensor.detach().to("cpu", dtype).contiguous().numpy()
    return found


__all__ = [
    "GRADIENT_TOLERANCE",
    "MAX_ITERATIONS",
    "NATIVE_ELEMENTS",
    "LogisticHead",
    "accuracy",
    "fit_logistic",
    "ood_accuracy",
]

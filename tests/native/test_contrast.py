"""Contrasts with stored scores: the same bits on every instruction set, and wrong combinations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmcl_fast import _native
from tests.native.scores import Array, bits

N, M, K, D = 37, 41, 3, 1050
OUTSIDE = np.array([0, 1, 3])
FORMS: dict[str, dict[str, Any]] = {
    "pairs": {},
    "symmetric": {"symmetric": True},
    "labels": {"labels": True, "symmetric": True, "smoothing": 0.1},
    "same rows": {"same_rows": True, "exclude_self": True, "positive": True},
    "supervised": {"form": "decoupled", "labels": True, "supervised": True, "same_rows": True,
                   "exclude_self": True},
    "hard": {"hard": True, "products": True, "smoothing": 0.2, "extra": 5},
    "counted": {"hard": True, "counts": True, "smoothing": 0.2},
    "sigmoid": {"form": "sigmoid", "bias": -1.0},
    "excluded": {"excluded": True, "extra": 5},
}  # fmt: skip


def address(x: Array | None) -> int:
    """Of a contiguous array; 0 for none."""
    if x is None or not x.size:
        return 0
    assert x.flags.c_contiguous
    return int(x.ctypes.data)


def evaluate(target: str, **options: Any) -> list[Array]:
    """Losses and all weights of a contrast."""
    square = options.get("symmetric", False) or options.get("same_rows", False)
    rng = np.random.default_rng(3)
    m = N if square else M
    scores = rng.standard_normal((N, m)).astype(np.float32) * 3
    hard = rng.standard_normal((N, K)).astype(np.float32) if options.get("hard") else None
    labels = (np.arange(N) % 4) if options.get("labels") else None
    query, positive_key = rng.standard_normal((2, N, D)).astype(np.float32) / 8
    products = options.get("products", False)
    counts = np.arange(N) % (K + 1) if options.get("counts") else None
    positive = (np.arange(N) ^ 1).clip(max=N - 1) if options.get("positive") else None
    excluded = rng.random((N, m - options.get("extra", 0))) < 0.3
    if not options.get("excluded"):
        excluded = None
    losses = np.empty(N, np.float32)
    contrast = _native.DenseContrast(
        (N, m, 0 if hard is None else K, D), address(scores), address(losses), None,
        options.get("form", "softmax"), 1 / 0.3, options.get("bias", 0.0),
        options.get("smoothing", 0.0), address(hard), address(counts), address(positive),
        address(query) if products else 0, address(positive_key) if products else 0,
        address(labels), address(labels), address(excluded), options.get("extra", 0),
        options.get("supervised", False), options.get("exclude_self", False),
        options.get("symmetric", False), options.get("same_rows", False), target,
    )  # fmt: skip
    weights, temperature, bias = np.empty_like(scores), np.empty_like(losses), np.empty_like(losses)
    of_hard = None if hard is None else np.empty_like(hard)
    of_positive = np.empty_like(losses) if products else None
    upstream = np.linspace(-1, 1, N, dtype=np.float32)
    contrast.weights(
        0.0, address(upstream), True, True, address(weights), address(of_hard),
        address(of_positive), address(temperature), 1.0, address(bias),
    )  # fmt: skip
    found = [losses, scores, weights, temperature, bias, of_hard, of_positive]
    return [x for x in found if x is not None]


@pytest.mark.parametrize("form", FORMS)
def test_same_bits_on_every_instruction_set(form: str, target: str) -> None:
    for mine, other in zip(
        evaluate(target, **FORMS[form]), evaluate("baseline", **FORMS[form]), strict=True
    ):
        np.testing.assert_array_equal(bits(mine), bits(other))


def unit_rows(target: str, x: Array, gradient: Array) -> tuple[Array, Array, Array]:
    """Unit rows, norms, and the gradient in the rows."""
    unit, norm, gradient = np.empty_like(x), np.empty(len(x), np.float32), gradient.copy()
    _native.unit_rows(address(x), address(unit), address(norm), *x.shape, target)
    _native.unit_rows_gradient(address(unit), address(norm), address(gradient), *x.shape, target)
    return unit, norm, gradient


def test_unit_rows_and_their_gradient(target: str) -> None:
    x, gradient = np.random.default_rng(4).standard_normal((2, 5, D)).astype(np.float32)
    x[1], x[2], x[3] = 0.0, x[2] * 1e-20, x[3] * 1e15
    found = unit_rows(target, x, gradient)
    exact = torch.from_numpy(x).double().requires_grad_()
    expected = torch.nn.functional.normalize(exact, dim=1)
    upstream = torch.from_numpy(gradient).double()
    slope = torch.autograd.grad(expected, exact, upstream)[0].numpy()
    np.testing.assert_allclose(found[0], expected.detach(), rtol=1e-6, atol=1e-30)
    scale = np.abs(slope).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found[2] / scale, slope / scale, atol=1e-6)
    for mine, other in zip(found, unit_rows("baseline", x, gradient), strict=True):
        np.testing.assert_array_equal(bits(mine), bits(other))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sizes": (3, 2, 0, 4)}, "scores: expected at least as many columns"),
    ({"sizes": (0, 3, 0, 4)}, "scores: expected at least one row"),
    ({"sizes": (2, 3, 0, 4), "symmetric": True}, "scores: expected as many rows as columns"),
    ({"form": "hinge"}, "form: expected softmax, decoupled or sigmoid, got 'hinge'"),
    ({"positive": address(OUTSIDE)}, "positive: expected columns of scores"),
    ({"labels": address(OUTSIDE)}, "labels, key_labels: expected both or neither"),
    ({"extra": 4}, "extra: expected at most 3, got 4"),
    ({"sizes": (3, 3, 1, 4)}, "hard: expected the products of hard negatives and their number"),
    ({"supervised": True}, "labels, key_labels: expected both or neither"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_wrong_combinations(change: dict[str, Any], message: str) -> None:
    scores, losses = np.zeros((3, 3), np.float32), np.zeros(3, np.float32)
    given: dict[str, Any] = {
        "sizes": (3, 3, 0, 4), "scores": address(scores), "losses": address(losses), "weight": None,
        "form": "softmax", "inverse_temperature": 1.0, "bias": 0.0, "smoothing": 0.0, "hard": 0,
        "hard_counts": 0, "positive": 0, "query": 0, "positive_key": 0, "labels": 0,
        "key_labels": 0, "excluded": 0, "extra": 0, "supervised": False, "exclude_self": False,
        "symmetric": False, "same_rows": False,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        _native.DenseContrast(**(given | change))


def test_wrong_outputs() -> None:
    scores, losses = np.zeros((3, 3), np.float32), np.zeros(3, np.float32)
    contrast = _native.DenseContrast(
        (3, 3, 0, 4), address(scores), address(losses), None, "softmax", 1.0, 0.0, 0.0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, False, False, False, False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="weights: expected outputs of the contrast's inputs"):
        contrast.weights(1.0, 0, True, False, address(scores), address(losses), 0, 0, 1.0, 0)

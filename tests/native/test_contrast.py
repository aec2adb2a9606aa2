"""Contrasts with stored scores: the same bits on every instruction set, and bad buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmcl_fast import _native
from tests.native.scores import Array, bits

N, M, K = 37, 41, 3
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
}  # fmt: skip


def evaluate(target: str, **options: Any) -> list[Array]:
    """Losses and all weights of a contrast."""
    square = options.get("symmetric", False) or options.get("same_rows", False)
    rng = np.random.default_rng(3)
    m = N if square else M
    scores = rng.standard_normal((N, m)).astype(np.float32) * 3
    hard = rng.standard_normal((N, K)).astype(np.float32) if options.get("hard") else None
    labels = (np.arange(N) % 4) if options.get("labels") else None
    products = rng.standard_normal(N).astype(np.float32) if options.get("products") else None
    losses = np.empty(N, np.float32)
    contrast = _native.DenseContrast(
        scores, losses, None, options.get("form", "softmax"), 1 / 0.3, options.get("bias", 0.0),
        options.get("smoothing", 0.0), hard,
        np.arange(N) % (K + 1) if options.get("counts") else None,
        (np.arange(N) ^ 1).clip(max=N - 1) if options.get("positive") else None, products,
        labels, labels, options.get("extra", 0), options.get("supervised", False),
        options.get("exclude_self", False), options.get("symmetric", False),
        options.get("same_rows", False), target,
    )  # fmt: skip
    weights, temperature, bias = np.empty_like(scores), np.empty_like(losses), np.empty_like(losses)
    of_hard = None if hard is None else np.empty_like(hard)
    of_positive = None if products is None else np.empty_like(losses)
    upstream = np.linspace(-1, 1, N, dtype=np.float32)
    contrast.weights(upstream, True, True, weights, of_hard, of_positive, temperature, bias)
    found = [losses, scores, weights, temperature, bias, of_hard, of_positive]
    return [x for x in found if x is not None]


@pytest.mark.parametrize("form", FORMS)
def test_same_bits_on_every_instruction_set(form: str, target: str) -> None:
    for mine, other in zip(
        evaluate(target, **FORMS[form]), evaluate("baseline", **FORMS[form]), strict=True
    ):
        np.testing.assert_array_equal(bits(mine), bits(other))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"scores": np.zeros((3, 2), np.float32)}, "scores: expected at least as many columns"),
    ({"scores": np.zeros((3, 3))}, "scores: expected float32 of 2 axes"),
    ({"losses": np.zeros(2, np.float32)}, "losses: expected contiguous float32 values"),
    ({"form": "hinge"}, "form: expected softmax, decoupled or sigmoid, got 'hinge'"),
    ({"positive": np.array([0, 1, 3])}, "positive: expected columns of scores"),
    ({"positive": np.arange(3, dtype=np.int32)}, "positive: expected 3 contiguous int64"),
    ({"labels": np.arange(3)}, "labels, key_labels: expected both or neither"),
    ({"extra": 4}, "extra: expected at most 3, got 4"),
    ({"hard": np.zeros((2, 1), np.float32)}, "hard: expected the rows of scores"),
    ({"supervised": True}, "labels, key_labels: expected both or neither"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_wrong_buffers(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "scores": np.zeros((3, 3), np.float32), "losses": np.zeros(3, np.float32), "weight": None,
        "form": "softmax", "inverse_temperature": 1.0, "bias": 0.0, "smoothing": 0.0, "hard": None,
        "hard_counts": None, "positive": None, "positive_products": None, "labels": None,
        "key_labels": None, "extra": 0, "supervised": False, "exclude_self": False,
        "symmetric": False, "same_rows": False,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        _native.DenseContrast(**(given | change))


def test_wrong_outputs() -> None:
    scores, losses = np.zeros((3, 3), np.float32), np.zeros(3, np.float32)
    contrast = _native.DenseContrast(
        scores, losses, None, "softmax", 1.0, 0.0, 0.0, None, None, None, None, None, None, 0,
        False, False, False, False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="weights: expected outputs in the shapes of the inputs"):
        contrast.weights(1.0, True, False, np.zeros((3, 4), np.float32), None, None, None, None)
    with pytest.raises(ValueError, match="temperature: expected one float32, or as many as rows"):
        contrast.weights(1.0, True, False, scores.copy(), None, None, losses[:2], None)

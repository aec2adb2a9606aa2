"""Gradient weights and the sigmoid loss's pass: against float64, and the same bits everywhere.

With u = 2^-24. Weights: a term 2 u, its product 1 u, the sum 1 u. Softplus: 2^-|s| 2 u, polynomial
and product 3 u, the addition of max(s, 0) 1 u, the sum 36 u, the end 1 u. Sigmoid: numerator and
denominator 2 u + 2 u, the division 1 u.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmcl_fast import _native
from tests.native.scores import LOG2, MASKED, Array, bits, block, exact_terms

U = 2.0**-24
WEIGHT, SIGMOID, SOFTPLUS = 4 * U, 5 * U, 43 * U
SHAPES = [(1, 1), (3, 1024), (2, 1025), (70, 33), (66, 2100), *((2, m) for m in range(71))]


def weights(
    scores: Array, rows: tuple[Array, Array], columns: tuple[Array, Array] | None, **options: object
) -> Array:
    out = scores.copy()
    settings = {"threads": 1, **options}
    _native.softmax_weights(out, *rows, *(columns or (None, None)), **settings)
    return out


def softplus(scores: Array, **options: object) -> tuple[Array, Array]:
    out, total = scores.copy(), np.full(len(scores), 77.0, np.float32)
    _native.softplus_rows(out, total, **{"threads": 1, **options})
    return out, total


def sides(scores: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Tops at the maxima, and scales of both signs, some 0."""
    rng = np.random.default_rng(1)
    found = []
    for axis in (1, 0):
        scale = rng.standard_normal(scores.shape[1 - axis]).astype(np.float32)
        scale[::5] = 0.0
        found.append((scores.max(axis=axis, initial=-40.0), scale))
    return found[0], found[1]


def test_weights_against_float64(target: str) -> None:
    for shape in SHAPES:
        check_weights(block(*shape), target)


def check_weights(scores: Array, target: str) -> None:
    rows, columns = sides(scores)
    row = exact_terms(scores, rows[0][:, None]) * rows[1][:, None].astype(np.float64)
    column = exact_terms(scores, columns[0]) * columns[1].astype(np.float64)
    one = weights(scores, rows, None, target=target)
    two = weights(scores, rows, columns, target=target)
    np.testing.assert_array_less(np.abs(one - row), WEIGHT * np.abs(row) + 1e-300)
    size = np.abs(row) + np.abs(column)
    np.testing.assert_array_less(np.abs(two - (row + column)), WEIGHT * size + 1e-300)
    first = _native.targets()[0]
    np.testing.assert_array_equal(bits(one), bits(weights(scores, rows, None, target=first)))
    np.testing.assert_array_equal(bits(two), bits(weights(scores, rows, columns, target=first)))


def test_weights_are_never_subnormal(target: str) -> None:
    scores = np.linspace(-99, 0, 50, dtype=np.float32)[None]
    zero, scale = np.zeros(1, np.float32), np.full(1, -(2.0**-60), np.float32)
    found = weights(scores, (zero, scale), None, target=target)
    assert (found != 0).sum() > 20
    assert (found == 0).sum() > 5
    assert (np.abs(found[found != 0]) >= 2.0**-126).all()
    across = np.zeros(50, np.float32)
    both = weights(scores, (zero, scale), (across, across), target=target)
    np.testing.assert_array_equal(both, found)


def test_weights_under_any_top(target: str) -> None:
    scores = np.array([[-np.inf, MASKED, 127.0, 128.0, 1e30, np.inf, np.nan]] * 6, np.float32)
    zero, one = np.zeros(6, np.float32), np.ones(6, np.float32)
    expected = [0, 0, 2.0**127, np.inf, np.inf, np.inf, np.nan]
    found = weights(scores, (zero, one), None, target=target)
    np.testing.assert_array_equal(found, [expected] * 6)
    across = np.zeros(7, np.float32), np.zeros(7, np.float32)
    found = weights(scores, (zero, one), across, target=target)
    expected[3:6] = [np.nan] * 3  # inf * 0
    np.testing.assert_array_equal(found, [expected] * 6)


def test_softplus_against_float64(target: str) -> None:
    for shape in SHAPES:
        check_softplus(block(*shape), target)


def check_softplus(scores: Array, target: str) -> None:
    sigmoid, total = softplus(scores, target=target)
    s = scores.astype(np.float64)
    with np.errstate(over="ignore"):
        power = np.where(s < -100, 0.0, np.exp2(s))
        decay = np.where(-s < -100, 0.0, np.exp2(-s))
        exact = np.where(s < 0, power / (1 + power), 1 / (1 + decay))
    tails = np.log1p(np.where(s < 0, power, decay))
    exact_total = (np.maximum(s, 0) * LOG2 + tails).sum(axis=1)
    np.testing.assert_array_less(np.abs(sigmoid - exact), SIGMOID * exact + 1e-300)
    np.testing.assert_array_less(np.abs(total - exact_total), SOFTPLUS * exact_total + 1e-300)
    other, other_total = softplus(scores, target=_native.targets()[0])
    np.testing.assert_array_equal(bits(sigmoid), bits(other))
    np.testing.assert_array_equal(bits(total), bits(other_total))


def test_softplus_one_score_at_a_time(target: str) -> None:
    """So that no tail hides behind the larger terms of its row."""
    scores = np.linspace(-100, 100, 20_001, dtype=np.float32)[:, None]
    _, total = softplus(scores, target=target)
    exact = np.logaddexp(0, scores[:, 0].astype(np.float64) * LOG2)
    np.testing.assert_array_less(np.abs(total - exact), 8 * U * exact)


def test_softplus_of_extremes(target: str) -> None:
    scores = np.array([-np.inf, MASKED, -1e30, 0, 1e30, np.inf, np.nan], np.float32)[:, None]
    sigmoid, total = softplus(scores, target=target)
    np.testing.assert_array_equal(sigmoid[:, 0], [0, 0, 0, 0.5, 1, 1, np.nan])
    large = np.float32(float(np.float32(1e30)) * LOG2)
    np.testing.assert_array_equal(total, [0, 0, 0, np.float32(LOG2), large, np.inf, np.nan])


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_nothing(threads: int) -> None:
    scores = block(450, 2100)
    rows, columns = sides(scores)
    for side in (None, columns):
        expected = weights(scores, rows, side)
        np.testing.assert_array_equal(weights(scores, rows, side, threads=threads), expected)
    for found, expected in zip(softplus(scores, threads=threads), softplus(scores), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_only_the_block_is_written(target: str) -> None:
    scores = block(7, 45)
    rows, columns = sides(scores)
    memory = np.full((7, 60), 55.0, np.float32)
    memory[:, 3:48] = scores
    settings = {"threads": 1, "target": target}
    _native.softmax_weights(memory[:, 3:48], *rows, *columns, **settings)
    expected = weights(scores, rows, columns, target=target)
    np.testing.assert_array_equal(memory[:, 3:48], expected)
    memory[:, 3:48] = scores
    _native.softplus_rows(memory[:, 3:48], np.zeros(7, np.float32), **settings)
    np.testing.assert_array_equal(memory[:, 3:48], softplus(scores, target=target)[0])
    memory[:, 3:48] = 55.0
    assert (memory == 55.0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"column_scale": None}, "column_top, column_scale: expected both or neither, got one"),
        ({"row_scale": np.zeros(2, np.float32)}, "row_scale: expected 3 contiguous values"),
        ({"column_top": np.zeros(3, np.float32)}, "column_top: expected 4 contiguous values"),
        ({"column_scale": np.zeros(4)}, "column_scale: expected float32 of 1 axes, got format 'd'"),
        ({"scores": np.zeros((3, 4))}, "scores: expected float32 of 2 axes, got format 'd'"),
        ({"threads": -1}, "threads: expected at least 1, got -1"),
    ],
)
def test_bad_weights_are_refused(change: dict[str, object], message: str) -> None:
    sizes = {"row_top": 3, "row_scale": 3, "column_top": 4, "column_scale": 4}
    arguments: dict[str, object] = {k: np.zeros(n, np.float32) for k, n in sizes.items()}
    arguments |= {"scores": np.full((3, 4), 5.0, np.float32), "threads": 1}
    with pytest.raises(ValueError, match=re.escape(message)):
        _native.softmax_weights(**{**arguments, **change})
    assert (arguments["scores"] == 5.0).all()


def test_bad_softplus_is_refused() -> None:
    scores, total = np.zeros((3, 4), np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="total: expected 3 contiguous values"):
        _native.softplus_rows(scores, total, threads=1)

"""The native passes over scores: against float64, and the same bits whatever runs them.

With u = 2^-24: a term is within 2 u of 2^x, x the float32 difference (polynomial 0.05 u, last step
of Horner's rule 1 u, the steps before it 0.5 u, rounded up). A row's total adds 31 roundings of a
partial sum, 5 of the fold and 1 at the end; a column's 63 and 1.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from mmcl_fast import _native
from tests.native.scores import (
    LOWEST_TOP,
    MASKED,
    Array,
    assert_same,
    bits,
    block,
    exact_terms,
    softmax,
    softmax_both,
)

U = 2.0**-24
TERM = 2 * U
TOTAL = {1: TERM + 37 * U, 0: TERM + 64 * U}  # by axis
AXES = pytest.mark.parametrize("axis", [1, 0], ids=["rows", "columns"])
SHAPES = [
    (1, 1),
    (3, 1024),  # one segment
    (2, 1025),  # and one score more
    (64, 40),  # one group of rows
    (130, 67),  # groups of rows, and a tail both ways
    (5, 4500),  # segments and a tail
    (700, 3),  # fewer columns than any vector
]
SHAPES_AND_TAILS = [*SHAPES, *((3, m) for m in range(71))]


def assert_exact(found: Array, exact: np.ndarray, bound: float) -> None:
    np.testing.assert_array_less(np.abs(found - exact), bound * np.abs(exact) + 1e-300)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@AXES
def test_softmax_against_float64(shape: tuple[int, int], axis: int, target: str) -> None:
    scores = block(*shape)
    before = np.linspace(-30, 30, shape[1 - axis], dtype=np.float32)
    found = softmax(scores, axis, top=before, target=target)
    top = np.maximum(before, scores.max(axis=axis))
    exact = exact_terms(scores, np.expand_dims(top, axis))
    np.testing.assert_array_equal(found.top, top)
    assert_exact(found.terms, exact, TERM)
    assert_exact(found.total, exact.sum(axis=axis), TOTAL[axis])


def test_terms_over_their_whole_range(target: str) -> None:
    x = np.linspace(-100, 0, 100_003, dtype=np.float32)[None]
    found = softmax(x, 1, top=0.0, target=target)
    assert_exact(found.terms, np.exp2(x.astype(np.float64)), TERM)
    assert found.terms[0, 0] == 2.0**-100
    assert found.terms[0, -1] == 1.0
    below = np.nextafter(np.float32(-100), np.float32(-200)).reshape(1, 1)
    assert softmax(below, 1, top=0.0, target=target).terms == 0.0


@AXES
def test_every_tail(axis: int, target: str) -> None:
    for m in range(71):
        scores = block(3, m) if axis == 1 else block(m, 3)
        across = scores if axis == 1 else scores.T.copy()
        for case in (scores, across):
            found = softmax(case, axis, top=-40.0, target=target)
            top = np.max(case, axis=axis, initial=-40.0)
            exact = exact_terms(case, np.expand_dims(top, axis))
            np.testing.assert_array_equal(found.top, top)
            assert_exact(found.terms, exact, TERM)
            assert_exact(found.total, exact.sum(axis=axis), TOTAL[axis])


def test_instruction_sets_agree() -> None:
    for shape, axis in itertools.product(SHAPES_AND_TAILS, (0, 1)):
        scores = block(*shape)
        expected = softmax(scores, axis, top=-3.0, target=_native.targets()[0])
        for target in _native.targets()[1:]:
            assert_same(softmax(scores, axis, top=-3.0, target=target), expected)


def test_both_is_rows_and_columns(target: str) -> None:
    for shape in SHAPES_AND_TAILS:
        scores = block(*shape)
        rows, columns = softmax_both(scores, top=-3.0, target=target)
        assert_same(rows, softmax(scores, 1, top=-3.0, out="none", target=target))
        assert_same(columns, softmax(scores, 0, top=-3.0, out="none", target=target))


@AXES
@pytest.mark.parametrize("out", ["same", "none"])
def test_where_the_terms_go_changes_nothing(axis: int, out: str, target: str) -> None:
    scores = block(66, 1100)
    expected = softmax(scores, axis, target=target)
    found = softmax(scores.copy(), axis, out=out, target=target)
    assert_same(found, expected)


@AXES
def test_place_and_stride_change_nothing(axis: int, target: str) -> None:
    scores = block(7, 1100)
    expected = softmax(scores, axis, target=target)
    for shift, stride in ((1, 1101), (7, 1150), (16, 2048)):
        memory = np.full(8 * stride + shift, 55.0, np.float32)
        inside = memory[shift : shift + 7 * stride].reshape(7, stride)[:, :1100]
        inside[:] = scores
        assert_same(softmax(inside, axis, target=target), expected)
        assert_same(softmax(inside, axis, out="same", target=target), expected)
        inside[:] = 55.0
        assert (memory == 55.0).all(), "nothing outside is written"
    for i in (0, 6):
        alone = scores[i : i + 1] if axis == 1 else scores[:, i : i + 1]
        one = softmax(alone.copy(), axis, target=target)
        assert bits(one.total)[0] == bits(expected.total)[i]


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_nothing(threads: int) -> None:
    scores = block(450, 2100)  # seven threads' worth, in three segments
    assert scores.size >= 7 * 2**17
    for axis in (0, 1):
        assert_same(softmax(scores, axis, threads=threads), softmax(scores, axis))
    one, several = softmax_both(scores), softmax_both(scores, threads=threads)
    for found, expected in zip(several, one, strict=True):
        assert_same(found, expected)


@AXES
def test_masked_scores_count_nothing(axis: int, target: str) -> None:
    scores = np.full((40, 40), MASKED, np.float32)
    scores[3] = -np.inf
    for out in ("new", "same", "none"):
        found = softmax(scores.copy(), axis, out=out, target=target)
        np.testing.assert_array_equal(found.total, np.zeros(40))
        np.testing.assert_array_equal(found.top, np.full(40, LOWEST_TOP))
        assert found.terms is None or (found.terms == 0).all()
    for found in softmax_both(scores, target=target):
        np.testing.assert_array_equal(found.total, np.zeros(40))
        np.testing.assert_array_equal(found.top, np.full(40, LOWEST_TOP))


@AXES
def test_huge_scores(axis: int, target: str) -> None:
    scores = np.full((35, 35), -1e30, np.float32)
    np.fill_diagonal(scores, 1e30)
    found = softmax(scores, axis, target=target)
    np.testing.assert_array_equal(found.terms, np.eye(35))
    np.testing.assert_array_equal(found.total, np.ones(35))
    level = softmax(np.full((35, 35), -1e30, np.float32), axis, target=target)
    np.testing.assert_array_equal(level.total, np.full(35, 35.0))


@AXES
@pytest.mark.parametrize("where", [0, 20, 33, 38])
def test_not_a_number_and_infinity(axis: int, where: int, target: str) -> None:
    for bad in (np.float32(np.nan), np.uint32(0x7FC00001).view(np.float32), np.float32(np.inf)):
        scores = block(39, 39)
        scores[where, where] = bad
        found = softmax(scores, axis, target=target)
        expected = np.zeros(39, bool)
        expected[where] = True
        np.testing.assert_array_equal(np.isnan(found.total), expected)
        assert np.isnan(found.terms[where, where])
        for side in softmax_both(scores, target=target):
            np.testing.assert_array_equal(np.isnan(side.total), expected)
    poisoned = np.zeros(39, np.float32)
    poisoned[where] = np.nan
    found = softmax(block(39, 39), axis, top=poisoned, target=target)
    np.testing.assert_array_equal(np.isnan(found.top), expected)
    np.testing.assert_array_equal(np.isnan(found.total), expected)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_empty_blocks(shape: tuple[int, int], target: str) -> None:
    scores = np.zeros(shape, np.float32)
    rows, columns = softmax_both(scores, top=2.0, target=target)
    for found, size in ((rows, shape[0]), (columns, shape[1])):
        np.testing.assert_array_equal(found.top, np.full(size, 2.0))
        np.testing.assert_array_equal(found.total, np.zeros(size))
    assert_same(softmax(scores, 1, top=2.0, out="none", target=target), rows)
    assert_same(softmax(scores, 0, top=2.0, out="none", target=target), columns)


@contextmanager
def rounding_down() -> Iterator[None]:
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    down, nearest = 0x400, 0
    assert libm.fesetround(down) == 0
    try:
        yield
    finally:
        libm.fesetround(nearest)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the mode's number is x86-64's")
def test_the_callers_rounding_mode_changes_nothing(target: str) -> None:
    scores = block(5, 300)
    for axis in (0, 1):
        expected = softmax(scores, axis, target=target)
        with rounding_down():
            found = softmax(scores, axis, target=target)
        assert_same(found, expected)


F32 = np.float32
GOOD = {"scores": (3, 4), "terms": (3, 4), "top": (3,), "total": (3,)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros((3, 4))}, "scores: expected float32 of 2 axes, got format 'd' [3, 4]"),
        ({"scores": np.zeros(12, F32)}, "scores: expected float32 of 2 axes, got format 'f' [12]"),
        ({"scores": np.zeros((4, 3), F32).T}, "scores: expected contiguous rows"),
        ({"scores": np.zeros((6, 4), F32)[::-2]}, "scores: expected contiguous rows"),
        ({"scores": np.zeros((3, 8), F32)[:, ::2]}, "scores: expected contiguous rows"),
        ({"terms": np.zeros((3, 5), F32)}, "terms: expected the shape of scores, "),
        ({"terms": np.zeros((4, 3), F32).T}, "terms: expected contiguous rows"),
        ({"top": np.zeros(4, F32)}, "top: expected 3 contiguous values, got format 'f' [4]"),
        ({"top": np.zeros(6, F32)[::2]}, "top: expected 3 contiguous values"),
        ({"total": np.zeros(3, np.int32)}, "total: expected float32 of 1 axes, got format 'i' [3]"),
        ({"threads": 0}, "threads: expected at least 1, got 0"),
        ({"target": "sse9"}, "target: expected one of auto, "),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {k: np.full(shape, 5.0, F32) for k, shape in GOOD.items()}
    arguments |= {"threads": 1, **change}
    with pytest.raises(ValueError, match=re.escape(message)):
        _native.softmax_rows(**arguments)
    for name in GOOD.keys() - change.keys():
        assert (arguments[name] == 5.0).all(), name


def test_read_only_output_is_refused() -> None:
    scores, vectors = np.zeros((3, 4), F32), np.zeros((2, 3), F32)
    scores.flags.writeable = False
    _native.softmax_rows(scores, None, *vectors, threads=1)  # scores are only read
    with pytest.raises((ValueError, BufferError)):
        _native.softmax_rows(scores, scores, *vectors, threads=1)

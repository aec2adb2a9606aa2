"""Blocks of scores, the passes on them, and what they are in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmcl_fast import _native

Array = npt.NDArray[np.float32]
Exact = npt.NDArray[np.float64]

MASKED = np.finfo(np.float32).min / 2
LOWEST_TOP = np.float32(-(2.0**126))
LOG2 = float(np.log(2.0))


class Softmax(NamedTuple):
    """What a pass leaves behind; `terms` is None where they were not asked for."""

    top: Array
    total: Array
    terms: Array | None


def block(rows: int, columns: int, *, seed: int = 0, spread: float = 12.0) -> Array:
    """Scores some of whose terms are 0, one in ten masked."""
    rng = np.random.default_rng([seed, rows, columns])
    scores = (rng.standard_normal((rows, columns)) * spread).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = MASKED
    return scores


def softmax(
    scores: Array,
    axis: int,
    *,
    top: float | Array = -np.inf,
    out: str = "new",
    threads: int = 1,
    target: str = "auto",
) -> Softmax:
    """`softmax_rows` (axis 1) or `softmax_columns` (axis 0); `out` is "new", "same" or "none"."""
    run = _native.softmax_rows if axis == 1 else _native.softmax_columns
    tops = np.full(scores.shape[1 - axis], top, np.float32)
    total = np.full_like(tops, 77.0)
    terms = {"new": np.full_like(scores, 77.0), "same": scores, "none": None}[out]
    run(scores, terms, tops, total, threads=threads, target=target)
    return Softmax(tops, total, terms)


def softmax_both(
    scores: Array, *, threads: int = 1, target: str = "auto", top: float = -np.inf
) -> tuple[Softmax, Softmax]:
    """Statistics of rows, then of columns."""
    c, m = scores.shape
    rows = Softmax(np.full(c, top, np.float32), np.full(c, 77.0, np.float32), None)
    columns = Softmax(np.full(m, top, np.float32), np.full(m, 77.0, np.float32), None)
    _native.softmax_both(scores, *rows[:2], *columns[:2], threads=threads, target=target)
    return rows, columns


def exact_terms(scores: Array, top: Array) -> Exact:
    """2^x of the float32 difference x, 0 below 2^-100."""
    with np.errstate(invalid="ignore", over="ignore"):
        x = scores - top
    return np.where(x < -100, 0.0, np.exp2(x.astype(np.float64)))


def bits(x: Array) -> npt.NDArray[np.uint32]:
    """For comparisons that see the sign of zero; every not-a-number is one."""
    return np.where(np.isnan(x), np.float32(np.nan), x).view(np.uint32)


def assert_same(found: Softmax, expected: Softmax) -> None:
    """Equal in every bit."""
    for name in ("top", "total"):
        np.testing.assert_array_equal(bits(getattr(found, name)), bits(getattr(expected, name)))
    if found.terms is not None and expected.terms is not None:
        np.testing.assert_array_equal(bits(found.terms), bits(expected.terms))

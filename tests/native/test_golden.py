"""The compiled extension against the hashes of `csrc/tests/golden.txt`, on every target.

The same inputs as in `csrc/tests/test_golden.cpp`, which checks the core by itself: this is the
build that was installed, with its compiler's and its setup's flags.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmcl_fast import _native

LINES = (Path(__file__).parents[2] / "csrc" / "tests" / "golden.txt").read_text().splitlines()
GOLDEN = {name: value for value, name in (line.split(" ", 1) for line in LINES)}
THREADS = 2
Floats = NDArray[np.float32]


def hashed(*arrays: NDArray) -> str:
    """The hash of numbers and their places; every not-a-number counts as one."""
    total, place = np.uint64(0), 0
    for array in arrays:
        x = array.ravel()
        if x.dtype.kind == "f":
            x = np.where(np.isnan(x), x.dtype.type(np.nan), x)
        bits = x.view(f"u{x.itemsize}").astype(np.uint64)
        number = np.arange(place + 1, place + 1 + x.size, dtype=np.uint64)
        place += x.size
        h = bits + number * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        total = np.add.reduce(np.append(h ^ (h >> np.uint64(31)), total))
    return f"{int(total):016x}"


def values(count: int, scale: float, seed: int) -> Floats:
    """Numbers of both signs up to `scale`, by a linear congruential generator."""
    factor = np.cumprod(np.full(count, 1664525, np.uint32), dtype=np.uint32)
    before = np.concatenate([np.ones(1, np.uint32), factor[:-1]])
    offset = np.cumsum(before, dtype=np.uint32) * np.uint32(1013904223)
    state = factor * np.uint32(seed) + offset
    x = (state >> np.uint32(8)).astype(np.float32) * np.float32(2**-22) - np.float32(2)
    return x * (np.float32(0.5) * np.float32(scale))


def check(name: str, *arrays: NDArray) -> None:
    assert hashed(*arrays) == GOLDEN[name], name


@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16"])
def test_normals(kind: str, target: str) -> None:
    shape = (3, 5, 9000)
    first = np.empty(shape, "u2" if kind == "bfloat16" else kind)
    of_runs = np.empty_like(first)
    _native.fill_normal(
        first, start=(1, 2, 300), seed=0x123456789ABCDEF, tag=7, epoch=77, scale=0.37,
        threads=THREADS, target=target,
    )  # fmt: skip
    _native.fill_normal_runs(
        of_runs, seeds=[1, 2, 0xFFFFFFFFFFFF], scales=[1.0, 0.1, 3.0], tag=7, epoch=77,
        threads=THREADS, target=target,
    )  # fmt: skip
    check(f"fill_normal {kind}", first, of_runs)


def test_words_and_gram(target: str) -> None:
    words = np.empty((3, 5, 9000), np.uint32)
    stream = {"threads": THREADS, "target": target}
    _native.fill_words(words, start=(1, 2, 300), seed=5, tag=7, epoch=77, **stream)
    check("fill_words", words)
    gram = np.empty((40, 40))
    _native.streaming_gram(
        gram, start=(1, 2, 3), dims=5000, seed=5, tag=6, epoch=7, scale=0.5, **stream
    )
    check(f"streaming_gram {target}", gram)


@pytest.mark.parametrize("odd", [False, True])
def test_passes_over_scores(odd: bool, target: str) -> None:
    rows, columns = 67, 1500
    scores = values(rows * columns, 40.0, 3).reshape(rows, columns)
    if odd:
        scores[0, 5], scores[1, 7], scores[2, 9], scores[4, 1] = np.nan, np.inf, -np.inf, 1e-42
        scores[3] = -(2.0**127)
    suffix = ", odd scores" if odd else ""
    options = {"threads": THREADS, "target": target}
    terms, top, total = np.empty_like(scores), np.full(rows, -5, "f4"), np.empty(rows, "f4")
    column_top, column_total = np.full(columns, -5, "f4"), np.empty(columns, "f4")
    _native.softmax_rows(scores, terms, top, total, **options)
    check(f"softmax_rows{suffix}", terms, top, total)
    _native.softmax_columns(scores, terms, column_top, column_total, **options)
    check(f"softmax_columns{suffix}", terms, column_top, column_total)
    top[:], column_top[:] = -5, -5
    _native.softmax_both(scores, top, total, column_top, column_total, **options)
    check(f"softmax_both{suffix}", top, total, column_top, column_total)
    both, one = scores.copy(), scores.copy()
    _native.softmax_weights(both, top, total, column_top, column_total, **options)
    _native.softmax_weights(one, top, total, None, None, **options)
    check(f"softmax_weights{suffix}", both, one)
    _native.softplus_rows(scores, total, **options)
    check(f"softplus_rows{suffix}", scores, total)


class Training:
    """Products of made-up vectors: columns, then neurons, against columns and views."""

    n, m, dims, epochs = 57, 19, 1030, 40

    def __init__(self, sides: int, q: int, target: str) -> None:
        self.q, self.options = q, {"threads": THREADS, "target": target}
        self.vectors = self.n + 1 + (self.n if sides == 1 else 0)
        self.gram, self.z = [], []
        for k in range(sides):
            rows = values((2 * self.n + 1) * self.dims, 0.5, 11 + k).reshape(-1, self.dims)
            weights = values(self.m * self.dims, 0.1, 5 + k).reshape(-1, self.dims)
            gram = np.empty((self.n + 1, self.vectors), np.float32)
            z = np.empty((self.m, self.vectors), np.float32)
            left = [(rows[: self.n + 1], None), (weights, None)]
            job = ([gram, z], left, [(rows[: self.vectors], None)], self.n + 1)
            _native.inner_products([job], **self.options)
            self.gram.append(gram)
            self.z.append(z)
        self.moved = [np.zeros((self.m, self.n + 1), np.float32) for _ in self.z]

    def embeddings(self) -> list[Floats]:
        labels, columns = np.ones((1, self.n), np.float32), 9
        labels[0, ::3] = -1
        moved = values(self.m * columns, 0.3, 1).reshape(1, self.m, columns)
        gram = values(columns * (self.n + 1), 0.4, 2).reshape(1, columns, self.n + 1)
        given = np.empty((2, 1, self.n, self.m), np.float32)
        start = self.z[0][None]
        _native.embed(given[0], start, labels, q=self.q, **self.options)
        _native.embed(given[1], start, labels, q=self.q, moved=moved, gram=gram, **self.options)
        return list(given)

    def train(self, tau: float, eta: float) -> list[Floats]:
        curves = np.empty((3, 1, self.epochs), np.float32)
        gram, z, moved = ([x[None] for x in xs] for xs in (self.gram, self.z, self.moved))
        _native.train_trajectories(
            gram, z, moved, [25], [tau], [eta], curves, n=self.n, m=self.m, q=self.q, update=True,
            **self.options,
        )  # fmt: skip
        return [curves, *(x for pair in zip(self.z, self.moved, strict=True) for x in pair)]


@pytest.mark.parametrize(
    ("name", "sides", "q", "tau", "eta"),
    [
        ("single, q = 1", 1, 1, 0.1, 0.02),
        ("multi, q = 2", 2, 2, 0.1, 0.02),
        ("multi, q = 3", 2, 3, 0.1, 0.02),
        ("diverging", 2, 3, 0.002, 50.0),
    ],
)
def test_training(name: str, sides: int, q: int, tau: float, eta: float, target: str) -> None:
    run = Training(sides, q, target)
    products = [run.gram[0], run.z[0], *(x[1] for x in (run.gram, run.z) if sides == 2)]
    check(f"inner_products: {name}", *products)
    check(f"embed: {name}", *run.embeddings())
    check(f"train_trajectories: {name}", *run.train(tau, eta))


@pytest.mark.parametrize(
    ("kind", "n", "p"), [("float32", 50, 20), ("float64", 20, 50), ("float64", 60, 31)]
)
def test_heads(kind: str, n: int, p: int, target: str) -> None:
    drawn = values(3 * n * p, 1.0, 9)
    features = drawn.astype(kind).reshape(3, n, p)
    labels = np.where(drawn[: 3 * n] > np.float32(0.2), 1, -1).astype(np.float32).reshape(3, n)
    labels[:, -1], labels[:, 0] = -1, 1
    weight, bias, share = np.empty((3, p)), np.empty(3), np.empty(3)
    converged, steps = np.empty(3, np.bool_), np.empty(3, np.int64)
    options = {"threads": THREADS, "target": target}
    _native.fit_heads(
        features, labels, weight, bias, converged, steps, l2=1 / n, tolerance=1e-10,
        most_steps=200, **options,
    )  # fmt: skip
    check(f"fit_heads: {kind}, {n} x {p}", weight, bias, steps, converged)
    _native.score_heads(features, labels, weight, bias, share, **options)
    check(f"score_heads: {kind}, {n} x {p}", share)


def test_chi() -> None:
    rows, number = 20000, np.arange(40000)
    degrees = 1.0 + (number % 97) * np.where(number % 11 == 0, 1e3, 0.37)
    out = np.empty((2, rows))
    _native.fill_chi(out, degrees.reshape(2, rows), first_row=0, seeds=[3, 4], tag=9, threads=2)
    check("chi", out)

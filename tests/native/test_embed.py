"""Embeddings in coefficient space: the core against (3) in float64, and against itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from mmcl_fast import _native

EPS = np.finfo(np.float32).eps


@dataclass(frozen=True)
class Shape:
    samples: int
    m: int
    columns: int
    why: str
    q: int = 1
    beyond: int = 0
    runs: int = 2


SHAPES = [
    Shape(200, 50, 101, "the paper's test set"),
    Shape(100, 50, 0, "the paper's training set: pre-activations are given", beyond=100),
    Shape(7, 3, 8, "less than a unit of either", q=3),
    Shape(15, 16, 5, "whole units, the signal last in one"),
    Shape(16, 17, 5, "the signal alone in a unit", q=2),
    Shape(64, 6, 1, "whole tiles"),
    Shape(95, 13, 40, "a ragged tile of neurons"),
    Shape(1, 1, 1, "smallest"),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.why)


def problem(s: Shape) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(s.samples)
    given = {
        "start": rng.standard_normal((s.runs, s.m, s.samples + 1 + s.beyond)),
        "moved": rng.standard_normal((s.runs, s.m, s.columns)),
        "gram": rng.standard_normal((s.runs, s.columns, s.samples + 1)),
        "labels": np.sign(rng.standard_normal((s.runs, s.samples))),
    }
    found = {name: a.astype(np.float32) for name, a in given.items()}
    found["places"] = np.stack([rng.permutation(s.samples) for _ in range(s.runs)])
    return found


def embed(s: Shape, given: dict[str, np.ndarray], *, target: str = "auto", threads: int = 1):
    out = np.full((s.runs, s.samples, s.m), 77.0, np.float32)
    moving = {k: given[k] for k in ("moved", "gram")} if s.columns else {}
    _native.embed(
        out, given["start"], given["labels"], given["places"],
        q=s.q, threads=threads, target=target, **moving,
    )  # fmt: skip
    return out


@shapes
def test_is_the_definition(shape: Shape) -> None:
    given = problem(shape)
    wide = {name: a.astype(np.float64) for name, a in given.items()}
    kept = wide["start"][:, :, : shape.samples + 1]
    z = kept + wide["moved"] @ wide["gram"]
    size = np.abs(kept) + np.abs(wide["moved"]) @ np.abs(wide["gram"])
    y = wide["labels"][:, None, :]
    noise, signal = z[:, :, :-1], y * z[:, :, -1:]
    exact = np.maximum(noise, 0) ** shape.q + np.maximum(signal, 0) ** shape.q
    # A chain of k products is off by k eps of the sum of their sizes, a power by q times as much.
    size = np.maximum(size[:, :, :-1], size[:, :, -1:]) ** shape.q
    bound = 2 * shape.q * (shape.columns + 3) * EPS * size
    for name in _native.targets():
        out = embed(shape, given, target=name)
        for r in range(shape.runs):
            found = out[r][given["places"][r]].T
            assert (np.abs(found - exact[r]) <= bound[r]).all()


@shapes
def test_every_instruction_set_and_thread_count_gives_the_same_bits(shape: Shape) -> None:
    given = problem(shape)
    first, *others = (embed(shape, given, target=name) for name in _native.targets())
    for other in [*others, embed(shape, given, threads=3)]:
        assert other.tobytes() == first.tobytes()
    for r in range(shape.runs):
        alone = embed(replace(shape, runs=1), {k: a[r : r + 1] for k, a in given.items()})
        assert alone[0].tobytes() == first[r].tobytes()


def test_threads_do_not_share_memory() -> None:
    shape = replace(SHAPES[0], runs=60)
    given = problem(shape)
    alone = embed(shape, given)
    for threads in (2, 5, 100):
        assert embed(shape, given, threads=threads).tobytes() == alone.tobytes()


def test_without_places_rows_are_in_order() -> None:
    shape = SHAPES[0]
    given = problem(shape)
    given["places"][:] = np.arange(shape.samples)
    out = np.empty((shape.runs, shape.samples, shape.m), np.float32)
    _native.embed(
        out, given["start"], given["labels"], q=1, threads=1,
        moved=given["moved"], gram=given["gram"],
    )  # fmt: skip
    assert out.tobytes() == embed(shape, given).tobytes()


BAD = [
    ("places", lambda a: a + 1, "places: expected rows of out"),
    ("places", lambda a: a.astype(np.int32), "places: expected contiguous int64"),
    ("labels", lambda a: a[:, 1:], r"labels: expected contiguous float32 \[2, 7\]"),
    ("start", lambda a: a[:, :, :7], "start: expected a column for the signal"),
    ("gram", lambda a: a[:, :, 1:], r"gram: expected contiguous float32 \[2, 8, 8\]"),
    ("moved", lambda a: a[:1], r"moved: expected contiguous float32 \[2, 3, 8\]"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), BAD, ids=lambda x: str(x)[:10])
def test_bad_buffers_are_refused(name: str, spoil, message: str) -> None:
    shape = SHAPES[2]
    given = problem(shape)
    given[name] = spoil(given[name])
    with pytest.raises(ValueError, match=message):
        embed(shape, given)

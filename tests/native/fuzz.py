"""Random calls of the functions of `_native`: a wrong argument is refused, and nothing crashes.

    python tests/native/fuzz.py EXTENSION SEED CALLS LOG

EXTENSION is the path of the compiled module, for instance one with sanitizers. Writes each call to
LOG before it is made, so that the file names the one that a process died of. Ends with 1 if a call
raised what no caller expects or took longer than ten seconds.
"""

from __future__ import annotations

import collections
import faulthandler
import importlib.util
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
EXPECTED = (ValueError, TypeError, BufferError, OverflowError)
WRONG_TYPES = [
    np.float16, np.float64, np.uint16, np.uint32, np.int32, np.int64, np.int8, np.bool_,
    np.complex64, ">f4", ">f8", object, "S4", "M8[s]",
]  # fmt: skip
WRONG_INTEGERS = [
    -1, 0, 1, 2**31 - 1, 2**31, 2**32, 2**34 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 1.5, None, "3",
]  # fmt: skip
WRONG_OBJECTS = [None, 1, "x", [1, 2], b"abc", bytearray(16), object()]
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e38, -1e38, 1e-45]
STARTS = [
    (0, 0, 0), (1, 2, 3), (2**32 - 1, 0, 0), (2**32 - 3, 2**32 - 3, 2**34 - 40), (5, 6, 2**34 - 1),
]  # fmt: skip
WRONG_STARTS = [(), (1, 2), (-1, 0, 0), (2**64 - 1,) * 3, (2**64, 0, 0), None, "abc", [1, 2, 3.5]]


def values(shape: tuple[int, ...], dtype: Any, rnd: random.Random) -> np.ndarray:
    """Numbers of a dtype; floats are of several scales, some not finite."""
    dtype = np.dtype(dtype)
    drawn = np.random.default_rng(rnd.getrandbits(32))
    if dtype.kind == "f":
        x = np.asarray(drawn.standard_normal(shape) * rnd.choice([1, 1, 1, 1e3, 1e30, 1e-30]))
        if x.size and rnd.random() < 0.2:
            x.flat[rnd.randrange(x.size)] = rnd.choice(SPECIAL)
        with np.errstate(all="ignore"):
            return x.astype(dtype)
    if dtype.kind in "iu":
        return drawn.integers(0, 4, size=shape).astype(dtype)
    return np.zeros(shape, dtype)


def spread(x: np.ndarray) -> np.ndarray:
    """The same numbers, every second element of a larger array."""
    wide = np.zeros(tuple(2 * size for size in x.shape), x.dtype)
    view = wide[(slice(None, None, 2),) * x.ndim]
    view[...] = x
    return view


def unaligned(x: np.ndarray) -> np.ndarray:
    """The same numbers, one byte behind an aligned address."""
    view = np.zeros(x.nbytes + 16, np.uint8)[1 : 1 + x.nbytes].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def rows_apart(x: np.ndarray) -> np.ndarray:
    """The same numbers, rows with a gap between them."""
    wide = np.zeros((*x.shape[:-1], x.shape[-1] + 3), x.dtype)
    view = wide[..., : x.shape[-1]]
    view[...] = x
    return view


def read_only(x: np.ndarray) -> np.ndarray:
    """A copy that cannot be written."""
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def one_address(x: np.ndarray) -> np.ndarray:
    """Rows that all lie at one address."""
    return np.lib.stride_tricks.as_strided(x, x.shape, (0, *x.strides[1:]), writeable=True)


LAYOUTS: list[Callable[[np.ndarray], Any]] = [
    read_only,
    np.asfortranarray,
    spread,
    unaligned,
    rows_apart,
    one_address,
    lambda x: x[::-1],
    lambda x: memoryview(np.ascontiguousarray(x)),
    lambda x: x[..., None],
    lambda x: x[0],
]


class Draw:
    """Arguments, mostly right."""

    def __init__(self, native: ModuleType, seed: int) -> None:
        self.rnd = random.Random(seed)
        self.targets = ["auto", *native.targets()]

    def of(self, *choices: Any) -> Any:
        return self.rnd.choice(choices)

    def rarely(self, share: float) -> bool:
        return self.rnd.random() < share

    def array(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """An array; sometimes of another shape, dtype or layout, or none at all."""
        if self.rarely(0.05):
            axes = len(shape) if self.rarely(0.7) else self.of(0, 1, 2, 3, 4)
            shape = tuple(self.of(0, 1, 2, 3, 5, 16, 17) for _ in range(axes))
        if self.rarely(0.05):
            dtype = self.rnd.choice(WRONG_TYPES)
        x = values(shape, dtype, self.rnd)
        if self.rarely(0.02):
            return self.rnd.choice(WRONG_OBJECTS)
        if self.rarely(0.1) and x.ndim and x.size and x.dtype.kind in "fiu":
            return self.rnd.choice(LAYOUTS)(x)
        return x

    def set_values(self, x: Any, make: Callable[[np.ndarray], Any]) -> Any:
        """Overwrite an array's numbers with what makes sense there, if it has that kind at all."""
        if isinstance(x, np.ndarray) and x.dtype.kind in "fi" and x.flags.writeable:
            with np.errstate(all="ignore"):
                x[...] = make(x)
        return x

    def integer(self, *choices: int) -> Any:
        return self.rnd.choice(WRONG_INTEGERS) if self.rarely(0.04) else self.of(*choices)

    def each(self, count: int, draw: Callable[[], Any]) -> list[Any]:
        """A list with an element for each run, sometimes of another length."""
        count = self.of(0, 1, 2, 5) if self.rarely(0.04) else count
        return [draw() for _ in range(count)]

    def seed(self) -> Any:
        return self.integer(0, 1, 2**64 - 1)

    def scale(self) -> Any:
        return self.of(0.0, -1.0, 1e30, np.nan, np.inf, None, "x") if self.rarely(0.1) else 0.5

    def start(self) -> Any:
        return self.rnd.choice(WRONG_STARTS if self.rarely(0.04) else STARTS)

    def stream(self) -> dict[str, Any]:
        return {"tag": self.integer(0, 7, 255), "epoch": self.integer(0, 1, 2**24 - 1)}

    def machine(self) -> dict[str, Any]:
        threads = self.of(-1, 0, 1000, 2**31, 1.0, None) if self.rarely(0.05) else self.of(1, 2, 8)
        unknown = self.of("", "sse9", "AUTO", None, 3, "avx512\0")
        target = unknown if self.rarely(0.03) else self.rnd.choice(self.targets)
        return {"threads": threads, "target": target}

    def slice(self) -> tuple[int, int, int]:
        dims = self.of(0, 1, 2, 63, 64, 65, 255, 256, 257, 600, 1021)
        return (self.of(0, 1, 2, 3), self.of(0, 1, 2, 5), dims)

    def normals(self) -> Any:
        return self.of(np.float32, np.float64, np.uint16)


def fill_normal(d: Draw) -> Call:
    options = {"start": d.start(), "seed": d.seed(), "scale": d.scale(), **d.stream()}
    return "fill_normal", (d.array(d.slice(), d.normals()),), options | d.machine()


def fill_words(d: Draw) -> Call:
    options = {"start": d.start(), "seed": d.seed(), **d.stream(), **d.machine()}
    return "fill_words", (d.array(d.slice(), np.uint32),), options


def fill_normal_runs(d: Draw) -> Call:
    shape = d.slice()
    options = {"seeds": d.each(shape[0], d.seed), "scales": d.each(shape[0], d.scale)}
    options |= {**d.stream(), **d.machine()}
    return "fill_normal_runs", (d.array(shape, d.normals()),), options


def fill_word_runs(d: Draw) -> Call:
    shape = d.slice()
    options = {"seeds": d.each(shape[0], d.seed), **d.stream(), **d.machine()}
    return "fill_word_runs", (d.array(shape, np.uint32),), options


def streaming_gram(d: Draw) -> Call:
    samples = d.of(0, 1, 2, 3, 7, 17)
    dims = d.of(-1, 2**34 + 1, 2**64 - 1) if d.rarely(0.03) else d.of(0, 1, 16, 255, 1000, 2500)
    options = {"start": d.start(), "dims": dims, "seed": d.seed(), "scale": d.scale()}
    options |= {**d.stream(), **d.machine()}
    return "streaming_gram", (d.array((samples, samples), np.float64),), options


def fill_chi(d: Draw) -> Call:
    shape = (d.of(0, 1, 2, 3), d.of(0, 1, 2, 9))
    degrees = d.array(shape, np.float64)
    if not d.rarely(0.1):
        degrees = d.set_values(degrees, lambda x: 1 + np.abs(np.nan_to_num(x, posinf=1e6)))
    options = {"first_row": d.integer(0, 5, 2**32 - 20), "seeds": d.each(shape[0], d.seed)}
    options |= {"tag": d.integer(0, 7), "threads": d.machine()["threads"]}
    return "fill_chi", (d.array(shape, np.float64), degrees), options


def heads(d: Draw) -> Call:
    problems, n, p = d.of(0, 1, 2, 3), d.of(0, 1, 2, 5, 9, 17, 33), d.of(0, 1, 2, 7, 9, 16, 31)
    features = d.array((problems, n, p), d.of(np.float32, np.float64))
    labels = d.array((problems, n))
    if not d.rarely(0.1):
        labels = d.set_values(labels, lambda x: np.where(x > 0, 1, -1))
    weight, bias = d.array((problems, p), np.float64), d.array((problems,), np.float64)
    if d.rarely(0.3):
        share = d.array((problems,), np.float64)
        return "score_heads", (features, labels, weight, bias, share), d.machine()
    converged, steps = d.array((problems,), np.bool_), d.array((problems,), np.int64)
    odd = d.rarely(0.1)
    options = {
        "l2": d.of(1.0, 0.0, -1.0, np.nan, 1e300, np.inf) if odd else 0.01,
        "tolerance": d.of(0.0, -1.0, np.nan) if odd else 1e-8,
        "most_steps": d.of(0, 1, 50, -1, 2**64, None) if odd else 50,
    }
    return "fit_heads", (features, labels, weight, bias, converged, steps), options | d.machine()


def softmax(d: Draw) -> Call:
    c, m = d.of(0, 1, 2, 5, 17), d.of(0, 1, 3, 16, 33, 70, 1100)
    scores, rows, columns = d.array((c, m)), d.array((c,)), d.array((m,))
    name = d.of(
        "softmax_rows", "softmax_columns", "softmax_both", "softmax_weights", "softplus_rows"
    )
    arguments: tuple[Any, ...] = (scores, rows)
    if name in ("softmax_rows", "softmax_columns"):
        size = (c,) if name == "softmax_rows" else (m,)
        terms = d.of(None, scores, d.array((c, m)))
        arguments = (scores, terms, d.array(size), d.array(size))
    elif name == "softmax_both":
        arguments = (scores, rows, d.array((c,)), columns, d.array((m,)))
    elif name == "softmax_weights":
        pair = d.of((columns, d.array((m,))), (None, None), (None, columns))
        arguments = (scores, rows, d.array((c,)), *pair)
    return name, arguments, d.machine()


def embed(d: Draw) -> Call:
    runs, samples, m = d.of(0, 1, 2), d.of(0, 1, 2, 15, 16, 17, 40), d.of(0, 1, 3, 16, 17, 33)
    stride, columns = samples + d.of(0, 1, 1, 1, 2, 9), d.of(0, 1, 4, 9)
    places = None
    if d.rarely(0.5):
        place = d.of(-1, samples, 2**62, -(2**63)) if d.rarely(0.2) else max(0, samples - 1)
        places = d.set_values(d.array((runs, samples), np.int64), lambda _: place)
    moved = d.array((runs, m, columns)) if d.rarely(0.5) else None
    gram = d.array((runs, columns, samples + 1)) if (moved is None) == d.rarely(0.05) else None
    options = {"q": d.integer(1, 2, 16), "moved": moved, "gram": gram, **d.machine()}
    out, start = d.array((runs, samples, m)), d.array((runs, m, stride))
    return "embed", (out, start, d.array((runs, samples)), places), options


def inner_products(d: Draw) -> Call:
    def rows(count: int, dims: int) -> tuple[Any, Any]:
        order = [d.rnd.randrange(count) for _ in range(count)] if d.rarely(0.4) else None
        if d.rarely(0.03):
            order = [d.of(count, 2**63, -1, 2**64)] * count
        return d.array((count, dims)), order

    jobs = []
    for _ in range(d.of(0, 1, 2, 3)):
        dims, left, right = d.of(0, 1, 15, 16, 17, 800), d.of(0, 1, 3, 5, 9), d.of(0, 1, 3, 5, 9)
        first = left // 2 if d.rarely(0.3) else 0
        lists = [rows(first, dims), rows(left - first, dims)], [rows(right, dims)]
        jobs.append(([d.array((left, right))], *lists, d.integer(0, min(left, right))))
    return "inner_products", (jobs,), d.machine()


def train_trajectories(d: Draw) -> Call:
    runs, n, m, epochs = d.of(0, 1, 2), d.of(1, 2, 7, 16, 33), d.of(1, 3, 16, 17), d.of(0, 1, 2, 5)
    sides = d.of(1, 2)
    vectors = n + 1 + (n if sides == 1 else 0)

    def arrays(*shape: int) -> list[Any]:
        return [d.array((runs, *shape)) for _ in range(sides)]

    def tau() -> Any:
        return d.of(1.0, 0.0, np.nan, -1.0) if d.rarely(0.1) else 0.1

    arguments = (
        arrays(n + 1, vectors), arrays(m, vectors), arrays(m, n + 1),
        d.each(runs, lambda: d.integer(d.rnd.randrange(n + 1))), d.each(runs, tau),
        d.each(runs, lambda: 0.01), d.array((3, runs, epochs)),
    )  # fmt: skip
    options = {"n": d.integer(n), "m": d.integer(m), "q": d.integer(1, 2, 16)}
    options |= {"update": not d.rarely(0.2), **d.machine()}
    return "train_trajectories", arguments, options


def train_variants(d: Draw) -> Call:
    runs, n, m, epochs = d.of(0, 1, 2), d.of(1, 2, 7, 16, 33), d.of(1, 3, 16, 17), d.of(0, 1, 2, 5)
    multi, logistic, keys = d.rarely(0.3), d.rarely(0.2), d.rarely(0.3)
    axes, patches, codes = d.of(1, 2, 5), d.of(1, 1, 2, 3), d.of(1, 2, 5)
    views = n if not multi and not logistic else 0
    columns, vectors = n + axes + (views if keys else 0), n + axes + views

    def places(shape: tuple[int, ...], size: int) -> Any:
        wrong = d.of(-1, size, 2**31 - 1, -(2**31)) if d.rarely(0.03) else None
        x = d.array(shape, np.int32)
        return d.set_values(
            x, lambda x: np.arange(x.size).reshape(x.shape) % size if wrong is None else wrong
        )

    def modality() -> Any:
        products = [d.array((runs, columns, vectors))]
        if d.rarely(0.3):
            partner = places((runs, n), n)
            products = [d.array((runs, vectors)), d.array((runs, n)), partner]
        return products, d.array((runs, m, vectors)), d.array((runs, m, columns))

    first = modality()
    modalities = [first, modality()] if multi else [first]
    tables = (
        places((runs, patches, codes), axes), d.array((runs, patches, codes)),
        places((runs, 2, n), codes),
    )  # fmt: skip
    arguments = (
        modalities, tables, d.each(runs, lambda: d.integer(codes)), d.array((runs, 2, n)),
        d.array((runs, n)), d.each(runs, lambda: 0.1), d.each(runs, lambda: 0.01),
        d.each(runs, lambda: 0.01), d.array((runs,), np.float64), d.array((4, runs, epochs)),
    )  # fmt: skip
    options = {"n": d.integer(n), "m": d.integer(m), "q": d.integer(1, 2, 16)}
    options |= {"logistic": logistic, "key_gradients": keys, "axes": d.integer(axes)}
    options |= {"all_negatives": d.rarely(0.5), "cosine": d.rarely(0.3)}
    options |= {"learned_tau": d.rarely(0.3), "class_axes": d.integer(1), "patches": patches}
    options |= {"update": not d.rarely(0.2), **d.machine()}
    return "train_variants", arguments, options


CASES = [
    fill_normal, fill_words, fill_normal_runs, fill_word_runs, streaming_gram, fill_chi, heads,
    softmax, embed, inner_products, train_trajectories, train_variants,
]  # fmt: skip


def described(x: Any) -> str:
    """An argument in a few words."""
    if isinstance(x, np.ndarray):
        locked = "" if x.flags.writeable else " read-only"
        return f"{x.dtype.str}{list(x.shape)} strides {list(x.strides)}{locked}"
    if isinstance(x, (list, tuple)):
        return f"({', '.join(map(described, x))})"
    return repr(x)[:60]


def main(extension: str, seed: str, calls: str, log: str) -> int:
    faulthandler.enable()
    spec = importlib.util.spec_from_file_location("_native", extension)
    assert spec is not None
    assert spec.loader is not None
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    draw, outcomes, faults = Draw(native, int(seed)), collections.Counter[tuple[str, str]](), 0
    for number in range(int(calls)):
        name, arguments, options = draw.rnd.choice(CASES)(draw)
        told = [described(x) for x in arguments] + [
            f"{k}={described(v)}" for k, v in options.items()
        ]
        Path(log).write_text(f"call {number}: {name}({', '.join(told)})\n", encoding="utf-8")
        begin = time.monotonic()
        try:
            getattr(native, name)(*arguments, **options)
            outcome = "accepted"
        except EXPECTED:
            outcome = "refused"
        except Exception as error:  # noqa: BLE001 - any other type is what this program looks for
            outcome = f"raised {type(error).__name__}: {error}"
        if time.monotonic() - begin > 10:
            outcome = "slow"
        outcomes[name, outcome] += 1
        if outcome not in ("accepted", "refused"):
            faults += 1
            sys.stdout.write(f"{outcome}: {Path(log).read_text(encoding='utf-8')}")
    for (name, outcome), count in sorted(outcomes.items()):
        sys.stdout.write(f"{name} {outcome} {count}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

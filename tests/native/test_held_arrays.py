"""Long native calls: their arrays stay held, and a signal ends them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import numpy as np
import pytest

from mmcl_fast import _native
from mmcl_fast.data.stream.gram import streaming_gram

Call = Callable[[memoryview, int], None]


def _gram(view: memoryview, epochs: int) -> None:
    _native.streaming_gram(
        view, start=(0, 0, 0), dims=200 * epochs, seed=1, tag=1, epoch=0, scale=1.0, threads=1
    )


def _train(view: memoryview, epochs: int) -> None:
    n, m = 100, 20
    x = np.random.default_rng(0).standard_normal((n + 1, 300)).astype(np.float32) / 10
    gram = np.ascontiguousarray((x @ x.T)[None])
    z = [view, np.zeros((1, m, n + 1), np.float32)]
    moved = [np.zeros((1, m, n + 1), np.float32) for _ in z]
    curves = np.empty((3, 1, epochs), np.float32)
    _native.train_trajectories(
        [gram, gram], z, moved, [n // 2], [0.1], [0.01], curves, n=n, m=m, q=1, update=True,
        threads=1,
    )  # fmt: skip


def _products(view: memoryview, epochs: int) -> None:
    rows = view.shape[0]
    out = np.empty((rows, rows), np.float32)
    job = ([out], [(view, None)], [(view, None)], rows)
    _native.inner_products([job] * epochs, threads=1)


CALLS: dict[str, tuple[Call, str, tuple[int, ...]]] = {
    "streaming_gram": (_gram, "d", (100, 100)),
    "train_trajectories": (_train, "f", (1, 20, 101)),
    "inner_products": (_products, "f", (100, 200)),
}


@pytest.mark.parametrize("name", CALLS)
def test_arrays_stay_held(name: str) -> None:
    """Nobody can free or resize the memory of an array while a call runs."""
    call, kind, shape = CALLS[name]
    memory = bytearray(int(np.prod(shape)) * np.dtype(kind).itemsize)
    epochs, seconds = 10, 0.0
    while seconds < 0.3:  # so long that the other thread is not late
        epochs *= 4
        view = memoryview(memory).cast("B").cast(kind, shape)
        begin = time.perf_counter()
        call(view, epochs)
        seconds = time.perf_counter() - begin
    view = memoryview(memory).cast("B").cast(kind, shape)
    running = threading.Thread(target=call, args=(view, epochs))
    running.start()
    time.sleep(seconds / 3)
    try:
        with pytest.raises(BufferError):
            view.release()
        assert running.is_alive()
    finally:
        running.join()


def test_a_signal_ends_a_long_call() -> None:
    class Alarm(Exception):
        pass

    def ring(number: int, frame: FrameType | None) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Alarm):
            streaming_gram(1, "noise", 100, 2**31, threads=2)  # an hour
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("q", [0, 17, 2**31 - 1])
def test_powers_without_an_end_are_refused(q: int) -> None:
    """A power is a chain of products: the largest int would take minutes a sample."""
    ones = {
        size: np.ones(size, np.float32) for size in ((1, 2, 1), (1, 1, 3), (1, 1, 3, 3), (1, 2))
    }
    message = rf"q: expected 1 \.\. 16, got {q}"
    with pytest.raises(ValueError, match=message):
        _native.embed(ones[1, 2, 1], ones[1, 1, 3], ones[1, 2], q=q, threads=1)
    with pytest.raises(ValueError, match=message):
        _native.train_trajectories(
            [ones[1, 1, 3, 3][0]] * 2, [ones[1, 1, 3]] * 2, [ones[1, 1, 3]] * 2, [1], [0.1], [0.1],
            np.ones((3, 1, 1), np.float32), n=2, m=1, q=q, update=True, threads=1,
        )  # fmt: skip


@pytest.mark.parametrize("degrees", [np.inf, np.nan, 0.5, 2.0**53 + 2])
def test_degrees_without_a_draw_are_refused(degrees: float) -> None:
    with pytest.raises(ValueError, match=r"degrees: expected numbers in 1 \.\. 2\^53"):
        _native.fill_chi(
            np.empty((1, 1)), np.full((1, 1), degrees), first_row=0, seeds=[1], tag=1, threads=1
        )

"""Calls of `_native` during which another thread frees their arrays or changes what was checked.

    python tests/native/changed_arrays.py EXTENSION

Memory may not be freed while a call runs, and row numbers that change after their check may not be
used: a fault writes to memory that is not the call's, which a sanitizer always notices.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType

import numpy as np


def loaded(extension: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_native", extension)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def until_done(call: Callable[[], object], disturb: Callable[[], None]) -> None:
    """Disturb again and again while another thread calls."""
    running = threading.Thread(target=call)
    running.start()
    while running.is_alive():
        disturb()
        time.sleep(1e-4)
    running.join()


def free_state(native: ModuleType) -> None:
    """`z` of a training run, which reads it when it begins and writes it when it ends."""
    n, m, epochs = 60, 20, 20000
    x = np.random.default_rng(0).standard_normal((n + 1, 300)).astype(np.float32) / 10
    gram = np.ascontiguousarray((x @ x.T)[None])
    memory = bytearray(4 * m * (n + 1))
    view = memoryview(memory).cast("B").cast("f", (1, m, n + 1))
    z = [view, np.full((1, m, n + 1), 0.01, np.float32)]
    moved = [np.zeros((1, m, n + 1), np.float32) for _ in z]
    curves = np.empty((3, 1, epochs), np.float32)

    def train() -> None:
        native.train_trajectories(
            [gram, gram], z, moved, [n // 2], [0.1], [0.01], curves, n=n, m=m, q=1, update=True,
            threads=1,
        )  # fmt: skip

    refused = 0

    def free() -> None:
        nonlocal refused
        try:
            view.release()
            memory.clear()
        except BufferError:
            refused += 1

    # The run must have begun before its memory is freed: a released view would be refused.
    running = threading.Thread(target=train)
    running.start()
    time.sleep(0.05)
    until_done(running.join, free)
    if not refused:
        sys.exit("the memory of z could be freed while the run was on")


def change_places(native: ModuleType) -> None:
    """Rows of embeddings, which become rows that do not exist."""
    samples, m = 2000, 64
    start = np.ones((1, m, samples + 1), np.float32)
    labels, out = np.ones((1, samples), np.float32), np.empty((1, samples, m), np.float32)
    places = np.zeros((1, samples), np.int64)

    def embed() -> None:
        for _ in range(300):
            try:
                native.embed(out, start, labels, places, q=1, threads=1)
            except ValueError:  # changed before the check
                places[...] = 0

    def change() -> None:
        places[...] = 2**30 - places

    until_done(embed, change)


def change_degrees(native: ModuleType) -> None:
    """Degrees of freedom, which become infinite: no draw would be accepted."""
    degrees, out = np.full((1, 20000), 3.0), np.empty((1, 20000))

    def fill() -> None:
        for _ in range(30):
            try:
                native.fill_chi(out, degrees, first_row=0, seeds=[1], tag=1, threads=1)
            except ValueError:
                degrees[...] = 3.0

    def change() -> None:
        degrees[...] = np.inf if degrees[0, 0] == 3.0 else 3.0

    until_done(fill, change)


if __name__ == "__main__":
    for check in (free_state, change_places, change_degrees):
        check(loaded(sys.argv[1]))
        sys.stdout.write(f"{check.__name__}: done\n")

"""How fast the random stream is, as ratios taken in one run: python -m bench.data [--json FILE].

One thread, CPU time of that thread, median of repeats in which all variants take turns, output
into a given buffer. Only the two-thread scaling is wall time, of the quickest repeat of each: other
jobs can but slow it down, and where they never pause it says nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcl_fast.bench import _mkl, _record

from mmcl_fast import _native
from mmcl_fast.data import normal, streaming_gram

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
SIZES = {"1M": 2**20, "64M": 2**26}
REPEATS = 15
GRAM_SAMPLES, GRAM_DIMS = 100, 10**6
PACKAGES = ("mmcl-fast", "numpy", "torch", "mkl")
Variants = Mapping[str, Callable[[], object]]
Row = dict[str, Any]


def seconds(
    variants: Variants,
    repeats: int,
    clock: Callable[[], float] = time.thread_time,
    summary: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Median (or so) time of each variant; the variants take turns, after one untimed round."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, run in variants.items():
            begin = clock()
            run()
            if repeat > 0:
                taken[name].append(clock() - begin)
    return {name: summary(t) for name, t in taken.items()}


def ours(out: np.ndarray, target: str, threads: int = 1) -> Callable[[], object]:
    """Ours, with the instruction set forced."""
    return lambda: _native.fill_normal(
        out, start=(0, 0, 0), seed=1, tag=1, epoch=0, scale=1.0, threads=threads, target=target
    )


def fast_targets() -> list[str]:
    """What is worth timing: all but the fallback, unless there is nothing else."""
    return [t for t in _native.targets() if t != "baseline"] or _native.targets()


def best_of_mkl(out: np.ndarray) -> Variants:
    """The fastest of all MKL paths, found on 4M values; or none, with the reason printed."""
    try:
        trial = _mkl.paths(out[: 2**22])
    except _mkl.MklMissingError as missing:
        print(f"MKL skipped: {missing}")
        return {}
    timed = seconds(trial, repeats=7, summary=min)
    best = min(timed, key=lambda name: timed[name])
    return {best: _mkl.paths(out)[best]}


def normals(label: str, size: int) -> list[Row]:
    """All generators on one buffer: billions per second, and how many times faster ours is."""
    tensor = torch.zeros(1, 1, size)
    out = tensor.numpy()
    numpy_generator = np.random.Generator(np.random.PCG64(1))
    flat = out.reshape(-1)
    variants: Variants = {
        "memset": lambda: ctypes.memset(out.ctypes.data, 0, out.nbytes),
        "numpy PCG64": lambda: numpy_generator.standard_normal(dtype=np.float32, out=flat),
        "torch normal_": lambda: tensor.normal_(),
        **best_of_mkl(flat),
        **{target: ours(out, target) for target in fast_targets()},
    }
    taken = seconds(variants, REPEATS if size < 2**24 else REPEATS // 3)
    peers = [n for n in variants if n != "memset" and n not in fast_targets()]
    print(f"\n{label} float32 normals, one thread, CPU time")
    print(f"{'':24}{'G/s':>8}" + "".join(f"{'x ' + p:>20}" for p in peers) + f"{'of memset':>12}")
    rows = []
    for name, t in taken.items():
        ratios = {p: taken[p] / t for p in peers}
        fraction = taken["memset"] / t
        times = "".join(f"{r:>20.2f}" for r in ratios.values())
        print(f"{name:24}{size / t / 1e9:>8.3f}{times}{fraction:>12.1%}")
        rows.append(
            {"bench": "normals", "size": size, "variant": name, "seconds": t, "ratios": ratios}
            | {"fraction_of_memset": fraction}
        )
    return rows


def outputs(size: int = 2**20) -> list[Row]:
    """What dtype and scale cost, on the active target."""
    kinds = {"float32": np.float32, "float64": np.float64, "bfloat16": np.uint16}
    buffers = {n: np.zeros((1, 1, size), k) for n, k in kinds.items()}
    words = np.zeros((1, 1, size), np.uint32)
    where: dict[str, Any] = {"start": (0, 0, 0), "seed": 1, "tag": 1, "epoch": 0, "threads": 1}
    variants: dict[str, Callable[[], object]] = {
        f"{n}, scale {scale}": lambda b=b, s=scale: _native.fill_normal(b, scale=s, **where)
        for n, b in buffers.items()
        for scale in (1.0, 0.5)
    }
    variants["words"] = lambda: _native.fill_words(words, **where)
    taken = seconds(variants, REPEATS)
    print(f"\n1M values on {_native.active_target()}")
    for name, t in taken.items():
        print(f"{name:24}{size / t / 1e9:>8.3f} G/s")
    return [{"bench": "outputs", "variant": n, "seconds": t} for n, t in taken.items()]


def scaling(size: int = 2**25) -> list[Row]:
    """Wall time of one thread over that of two, the quickest of each.

    Where other jobs hold a core, the CPU time that both threads take together still shows what
    they cost each other.
    """
    tensor = torch.zeros(1, 1, size)
    rows = []
    print("\nTwo threads against one, 32M float32, quickest wall time")
    for target in fast_targets():
        variants = {str(k): ours(tensor.numpy(), target, threads=k) for k in (1, 2)}
        wall = seconds(variants, 4 * REPEATS, time.perf_counter, min)
        work = seconds(variants, REPEATS, time.process_time)
        gain, bound = wall["1"] / wall["2"], 2 * work["1"] / work["2"]
        print(f"{target:24}{gain:>8.2f}x, {bound:.2f}x by the CPU time of both")
        rows.append({"bench": "scaling", "variant": target, "gain": gain, "bound": bound})
    return rows


def gram() -> list[Row]:
    """Streaming Gram matrix against the bare product of data that is ready in memory."""
    x = normal(1, shape=(1, GRAM_SAMPLES, GRAM_DIMS))[0]
    ready, transposed = x.numpy(), x.numpy().T
    result = torch.empty(GRAM_SAMPLES, GRAM_SAMPLES)
    variants: Variants = {
        "torch mm, ready data": lambda: torch.mm(x, x.T, out=result),
        "numpy syrk, ready data": lambda: ready @ transposed,
        "streaming_gram": lambda: streaming_gram(1, "noise", GRAM_SAMPLES, GRAM_DIMS),
    }
    taken = seconds(variants, REPEATS // 2)
    best = min(t for n, t in taken.items() if n != "streaming_gram")
    print(f"\nGram matrix, n = {GRAM_SAMPLES}, d = {GRAM_DIMS}, one thread, CPU time")
    for name, t in taken.items():
        print(f"{name:24}{t * 1e3:>8.1f} ms{t / best:>8.2f} of the best bare product")
    return [
        {"bench": "gram", "variant": n, "seconds": t, "of_best_bare": t / best}
        for n, t in taken.items()
    ]


def main() -> None:
    """Print all tables; append them to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="append one JSON object per row to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for label, size in SIZES.items() for row in normals(label, size)]
    rows += outputs() + scaling() + gram()
    if arguments.json is not None:
        _record.append(arguments.json, rows, _record.context(PACKAGES))


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # BLAS reads these when it is loaded, so the process starts again with them.
        again = [sys.executable, "-m", "bench.data", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, **ONE_THREAD})
    main()

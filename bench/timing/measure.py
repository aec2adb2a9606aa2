"""Fair timing on a shared CPU: one thread, CPU time, variants interleaved, quantiles of repeats."""

from __future__ import annotations

import gc
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmcl_fast.operating_system.memory import forget_peak, peak_resident_bytes, resident_bytes
from mmcl_fast.operating_system.processors import pin_to_one_cpu

SINGLE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # its pool of compilers would outlive a fork
}


@dataclass(frozen=True)
class Quantiles:
    """20th, 50th and 80th percentile of repeated measurements, in the unit of the samples."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Quantiles:
        """Quantiles of at least one sample, interpolated."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        p20, _, _, p80 = statistics.quantiles(samples, n=5, method="inclusive")
        return cls(p20, statistics.median(samples), p80)

    def to_dict(self, *, scale: float = 1.0, digits: int = 4) -> dict[str, float]:
        """Scaled and rounded, for JSON."""
        return {name: round(value * scale, digits) for name, value in vars(self).items()}


def single_thread(*, pinned: bool = True) -> None:
    """Run this process on one thread, starting it again if its libraries would use more.

    BLAS, OpenMP and XLA read their variables while they load, so setting them late has no effect.

    Args:
        pinned: See `pin`; without it, threads that the benchmark starts itself find all CPUs.
    """
    if pinned:
        pin()
    if any(os.environ.get(name) != value for name, value in SINGLE_THREAD.items()):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **SINGLE_THREAD})


def pin() -> None:
    """Confine this process to a single CPU, where the system can.

    On two CPUs XLA's own settings still leave it two threads, which take more CPU time than one; on
    a single CPU it adapts.
    """
    pin_to_one_cpu()


def interleaved(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Time every variant once a round, so that a busy neighbour slows all of them alike.

    Args:
        variants: What to call; each is called once before the first round.
        rounds: Repeats; odd ones run the variants backwards, so none always follows the same one.
        clock: Seconds; by default the CPU time of all threads of this process.

    Returns: Seconds per call, by variant, in the order of the rounds.
    """
    for call in variants.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()  # libraries hold a million objects; the collections below need not look at them
    gc.disable()
    try:
        for k in range(rounds):
            names = list(variants)
            for name in names if k % 2 == 0 else reversed(names):
                begin = clock()
                variants[name]()
                seconds[name].append(clock() - begin)
            gc.collect()
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return seconds


def paired_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the rounds of slow / fast: both halves of a ratio saw the same machine."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def added_mib(call: Callable[[], object]) -> float:
    """How far a call raises this process's resident memory while it runs, in MiB; NaN off Linux."""
    if not forget_peak():
        return math.nan
    before, _ = resident_bytes()
    call()
    _, peak = resident_bytes()
    return (peak - before) / 2**20


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return peak_resident_bytes() / 2**20


__all__ = [
    "SINGLE_THREAD",
    "Quantiles",
    "added_mib",
    "interleaved",
    "paired_ratio",
    "peak_rss_mib",
    "pin",
    "single_thread",
]

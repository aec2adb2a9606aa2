"""Timing and recording of a step of `bench.gpu.steps`.

Times are of CUDA events, medians with the L2 cache flushed before each repeat; beside them stands
the host's time to issue a step, because where that is not shorter, the host is measured and not the
device.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from .. import record
from ..timing.measure import Quantiles
from .plan import DRY_RUN

DRY = os.environ.get(DRY_RUN) == "1"
"""Whether the CPU and Triton's interpreter stand for a GPU: sizes are tiny, times say nothing."""
CUDA = torch.device("cpu" if DRY else "cuda")
HALF = torch.float16 if DRY else torch.bfloat16  # the interpreter has no bfloat16 products
FLUSH_BYTES = 1 << 28
SPARE_S = 2.0  # nothing new begins so shortly before the end
HOST_BOUND = 0.9  # of the time of a step
REASON = 300  # characters
Row = dict[str, Any]
T, R = TypeVar("T"), TypeVar("R")
P = ParamSpec("P")


class Report:
    """Rows of a step, written as they come.

    Args:
        file: Results.
        common: Part of every row.
        until: When the step ends, by `time.monotonic`.
        once: Which part of how many is called once, and nothing written: for what that compiles.
    """

    def __init__(
        self,
        file: Path,
        common: Row | None = None,
        *,
        until: float = math.inf,
        once: tuple[int, int] | None = None,
    ) -> None:
        self._file, self._common, self._until, self._once = file, common or {}, until, once
        self.failed = False

    @property
    def once(self) -> bool:
        """Whether everything is called once, to compile it."""
        return self._once is not None

    def assigned(self, items: Sequence[T]) -> Sequence[T]:
        """All of the cases, or this part's."""
        part, parts = self._once or (1, 1)
        return items[part - 1 :: parts]

    def add(self, op: str, variant: str, settings: Row, **row: object) -> None:
        """Append a row; one with ok = False fails the step."""
        self.failed |= row.get("ok") is False
        named = {"op": op, "variant": variant, "settings": settings}
        if not self.once:
            record.append(self._file, [{**named, **row, **self._common}])

    def attempt(
        self,
        op: str,
        variant: str,
        settings: Row,
        call: Callable[[], Row],
        *,
        spare: float = SPARE_S,
    ) -> Row | None:
        """Append what `call` measures, or the reason why it could not: peers may be missing.

        Args:
            op: Operation.
            variant: Of it.
            settings: Of the variant.
            call: Not begun with fewer than
            spare: seconds left.
        """
        result, reason = None, "no time was left"
        if time.monotonic() + spare < self._until:
            try:
                result = call()
            except Exception as error:  # noqa: BLE001  a peer may fail in any way
                first = record.pathless(str(error).strip().split("\n")[0])
                reason = f"{type(error).__name__}: {first[:REASON]}"
        if result is None:
            print(f"{op}, {variant}, {settings}: {reason}")
            self.add(op, variant, settings, skipped=reason)
        else:
            self.add(op, variant, settings, **result)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return result

    def timed(self, call: Callable[[], object], *, seconds: float = 1.0, most: int = 50) -> Row:
        """Quantiles of the time, the host's time to issue it, memory above what was there.

        Args:
            call: What to time; called at least twice.
            seconds: Repeat so long, at least three times if `most` allows.
            most: Repeats.
        """
        if self.once:
            call()
            synchronize()
            return {"ms": Quantiles.of([1.0]).to_dict(), "repeats": 1}
        peak = _peak_mib(call)
        device, host = _repeated(call, seconds, most)
        ms, enqueue = Quantiles.of(device), Quantiles.of(host).p50
        row: Row = {"ms": ms.to_dict(), "repeats": len(device), "peak_mib": round(peak, 1)}
        return row | {"enqueue_ms": round(enqueue, 3), "host_bound": enqueue > HOST_BOUND * ms.p50}


def synchronize() -> None:
    """Wait for the device."""
    if not DRY:
        torch.cuda.synchronize()


def _peak_mib(call: Callable[[], object]) -> float:
    """Memory of a call above what was there; the first call loads libraries and may compile."""
    if DRY:
        return 0.0
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _repeated(
    call: Callable[[], object], seconds: float, most: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of repeats, on the device and until the host has issued them."""
    if DRY:
        begin = time.perf_counter()
        call()
        elapsed = 1e3 * (time.perf_counter() - begin)
        return [elapsed], [elapsed]
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=CUDA)
    device: list[float] = []
    host: list[float] = []
    begin = time.monotonic()
    least = min(3, most)
    while len(device) < least or (len(device) < most and time.monotonic() - begin < seconds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        issue = time.perf_counter()
        call()
        host.append(1e3 * (time.perf_counter() - issue))
        stop.record()
        stop.synchronize()
        device.append(start.elapsed_time(stop))
    return device, host


def compiled(function: Callable[P, R], **options: bool) -> Callable[P, R]:
    """A peer through torch.compile for one size: what is general is slower.

    Tiles that a process chose while others used the device are not kept for the timing.
    """
    if DRY:  # what would be compiled, without the minute that a compiler takes on a CPU
        return torch.compile(function, dynamic=False, backend="eager", **options)
    inductor = import_module("torch._inductor.config")
    inductor.autotune_local_cache = False  # type: ignore[attr-defined]
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False, **options)


def rows_like(n: int, d: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Random rows of norm 1."""
    generator = torch.Generator(CUDA).manual_seed(seed)
    drawn = torch.randn(n, d, generator=generator, device=CUDA)
    return torch.nn.functional.normalize(drawn, dim=1).to(dtype)


def distance(value: Tensor, exact: Tensor) -> float:
    """Relative to the size of the exact one; NaN stays NaN."""
    return float((value.double() - exact.double()).norm() / exact.double().norm())


def product_tflops(
    report: Report, dtype: torch.dtype = torch.bfloat16, size: int = 64 if DRY else 8192
) -> Row:
    """Rate of a dense product of random factors; float32 is never rounded to TF32."""
    torch.set_float32_matmul_precision("highest")
    a, b = (rows_like(size, size, dtype, seed) for seed in (0, 1))
    timed = report.timed(lambda: a @ b, seconds=0.7)
    return {**timed, "tflops": 2e-9 * size**3 / timed["ms"]["p50"]}


__all__ = [
    "CUDA",
    "DRY",
    "HALF",
    "SPARE_S",
    "Report",
    "Row",
    "compiled",
    "distance",
    "product_tflops",
    "rows_like",
    "synchronize",
]

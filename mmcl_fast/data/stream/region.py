"""A validated box of the random stream: stream, start and shape."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import SupportsIndex

from mmcl_fast.stream_tags import (
    MAX_DIM,
    MAX_EPOCH,
    MAX_RUN,
    MAX_SAMPLE,
    MAX_SEED,
    STREAM_TAGS,
)

AXES = (("runs", MAX_RUN), ("samples", MAX_SAMPLE), ("dims", MAX_DIM))
MAX_THREADS = 4096  # far above any machine: more is a mistake
LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Region:
    """Every coordinate is in range: `Region.check` is the only place that makes one."""

    seed: int
    tag: int
    epoch: int
    start: Triple
    shape: Triple

    @classmethod
    def check(
        cls,
        seed: SupportsIndex,
        stream: str,
        shape: Sequence[SupportsIndex],
        start: Sequence[SupportsIndex],
        epoch: SupportsIndex,
    ) -> Region:
        """Raise TypeError or ValueError: the argument, what was expected, what was got."""
        if not isinstance(stream, str) or stream not in STREAM_TAGS:
            raise ValueError(f"stream: expected one of {', '.join(STREAM_TAGS)}, got {stream!r}")
        sizes, origin = _triple("shape", shape), _triple("start", start)
        for (axis, last), size, first in zip(AXES, sizes, origin, strict=True):
            if first + size > last + 1:
                raise ValueError(
                    f"{axis}: expected start + size <= {last + 1}, got {first} + {size}"
                )
        return cls(
            seed=integer("seed", seed, 0, MAX_SEED),
            tag=STREAM_TAGS[stream],
            epoch=integer("epoch", epoch, 0, MAX_EPOCH),
            start=origin,
            shape=sizes,
        )

    def part(self, axis: int, offset: int, size: int) -> Region:
        """The part of length `size` (or up to the end) from `offset` on along an axis."""
        start, shape = list(self.start), list(self.shape)
        start[axis] += offset
        shape[axis] = min(size, shape[axis] - offset)
        return replace(
            self, start=(start[0], start[1], start[2]), shape=(shape[0], shape[1], shape[2])
        )

    @property
    def size(self) -> int:
        """Number of values."""
        runs, samples, dims = self.shape
        return runs * samples * dims


def integer(name: str, value: SupportsIndex, low: int, high: int) -> int:
    """`value` as an int in low..high; True and False are refused."""
    if isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if not low <= number <= high:
        raise ValueError(f"{name}: expected {low}..{high}, got {number}")
    return number


def check_scale(scale: float, dtype: str) -> float:
    """`scale` as a float that is finite, also after rounding to float32 unless dtype is float64."""
    try:
        factor = float(scale)
    except (TypeError, ValueError):
        raise TypeError(f"scale: expected a number, got {scale!r}") from None
    if not math.isfinite(factor) or (dtype != "float64" and abs(factor) > LARGEST_FLOAT32):
        raise ValueError(f"scale: expected a finite {dtype} factor, got {scale!r}")
    return factor


def _triple(name: str, values: Sequence[SupportsIndex]) -> Triple:
    if not isinstance(values, tuple | list) or len(values) != len(AXES):
        raise TypeError(f"{name}: expected (runs, samples, dims), got {values!r}")
    runs, samples, dims = (
        integer(f"{name}[{i}] ({axis})", v, 0, last + 1)
        for i, ((axis, last), v) in enumerate(zip(AXES, values, strict=True))
    )
    return runs, samples, dims

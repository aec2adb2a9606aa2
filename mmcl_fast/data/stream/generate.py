"""Any box [runs, samples, dims] of the random stream (`docs/stream.md`), by the native core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, SupportsIndex, overload

import numpy as np
import numpy.typing as npt
import torch

from mmcl_fast import _native
from mmcl_fast.data.stream.memory import require_memory
from mmcl_fast.data.stream.outputs import (
    Out,
    check_dtype,
    check_out,
    empty,
    name_of,
    writable_view,
)
from mmcl_fast.data.stream.region import MAX_THREADS, Region, check_scale, integer
from mmcl_fast.stream_tags import MAX_SEED, STREAM_TAGS

CHUNK_BYTES = 1 << 20  # a chunk and what is computed from it stay in a second-level cache
LABEL_STREAMS = ("labels", "test_labels", "probe_labels")
TILE = 256  # dimensions made together; chunks that start elsewhere make some of them twice
DType = str | torch.dtype
Shape = Sequence[SupportsIndex]
# Stream, the key of each run, (samples, dims), the scale of each run, dtype: [R, samples, dims].
NormalRuns = Callable[
    [str, Sequence[int], tuple[int, int], Sequence[float], torch.dtype], torch.Tensor
]


@overload
def normal(
    seed: int,
    stream: str = ...,
    shape: Shape = ...,
    start: Shape = ...,
    epoch: int = ...,
    scale: float = ...,
    dtype: DType = ...,
    out: None = ...,
    threads: int = ...,
) -> torch.Tensor: ...
@overload
def normal(
    seed: int,
    stream: str = ...,
    shape: Shape | None = ...,
    start: Shape = ...,
    epoch: int = ...,
    scale: float = ...,
    dtype: DType = ...,
    *,
    out: Out,
    threads: int = ...,
) -> Out: ...
def normal(  # noqa: PLR0913  the signature is a contract, and each argument is a coordinate
    seed: int,
    stream: str = "noise",
    shape: Shape | None = None,
    start: Shape = (0, 0, 0),
    epoch: int = 0,
    scale: float = 1.0,
    dtype: DType = "float32",
    out: torch.Tensor | npt.NDArray[Any] | None = None,
    threads: int = 1,
) -> torch.Tensor | npt.NDArray[Any]:
    """Normals N(0, scale^2) at [run, sample, dim] of a stream; any slice equals that of the whole.

    A value depends on (seed, stream, epoch, run, sample, dim) alone: not on shape, threads,
    instruction set, or on what was drawn before.

    Args:
        seed: Key, 0 .. 2^64 - 1.
        stream: A name in `mmcl_fast.stream_tags.STREAM_TAGS`.
        shape: (runs, samples, dims), each >= 0; may be left out if `out` is given.
        start: First (run, sample, dim), each >= 0; start + shape <= (2^32, 2^32, 2^34).
        epoch: 0 .. 2^24 - 1.
        scale: Finite factor; also finite as float32 unless dtype is float64.
        dtype: "float32" | "bfloat16" | "float64", or the torch dtype.
        out: C-contiguous CPU memory [runs, samples, dims] of `dtype` to fill, torch or NumPy
            (bfloat16: torch only).
        threads: At most so many threads, >= 1.
    Returns: `out`, or a new tensor [runs, samples, dims] of `dtype`.
    Raises: ValueError (range, shape, layout), TypeError (dtype, not an integer), MemoryError (the
        result would not fit into available memory); nothing has been written then.
    Numerics: z is exact to docs/stream.md in every bit. float32: z * float32(scale). bfloat16:
        that, rounded to nearest even. float64: float64(z) * scale.
    See: mmcl_fast.data.stream.stream_numpy.standard_normal (meaning), `chunks` (more than fits
    memory).
    """
    region = Region.check(seed, stream, _shape_or_that_of(out, shape), start, epoch)
    chosen = check_dtype(dtype)
    factor = check_scale(scale, name_of(chosen))
    threads = integer("threads", threads, 1, MAX_THREADS)
    if out is None:
        out = empty(region.shape, chosen)
    else:
        check_out(out, region.shape, chosen)
    _fill_normal(out, region, factor, threads)
    return out


def words(
    seed: int,
    stream: str,
    shape: Shape,
    start: Shape = (0, 0, 0),
    epoch: int = 0,
    *,
    threads: int = 1,
) -> npt.NDArray[np.uint32]:
    """Raw 32-bit words at [run, sample, dim] of a stream: labels, priorities, sort keys.

    Args:
        seed: Key, 0 .. 2^64 - 1.
        stream: A name in `mmcl_fast.stream_tags.STREAM_TAGS`.
        shape: (runs, samples, dims), each >= 0.
        start: First (run, sample, dim), each >= 0; start + shape <= (2^32, 2^32, 2^34).
        epoch: 0 .. 2^24 - 1.
        threads: At most so many threads, >= 1.
    Returns: NumPy uint32 [runs, samples, dims].
    Raises: ValueError (range), TypeError (not an integer), MemoryError (would not fit).
    See: mmcl_fast.data.stream.stream_numpy.words (meaning).
    """
    region = Region.check(seed, stream, shape, start, epoch)
    threads = integer("threads", threads, 1, MAX_THREADS)
    require_memory(region.size * 4, f"shape {region.shape} of uint32")
    out = np.empty(region.shape, dtype=np.uint32)
    _native.fill_words(
        out,
        start=region.start,
        seed=region.seed,
        tag=region.tag,
        epoch=region.epoch,
        threads=threads,
    )
    return out


def labels(
    seed: int,
    stream: str = "labels",
    shape: Sequence[SupportsIndex] = (1, 1),
    start: Sequence[SupportsIndex] = (0, 0),
    *,
    dtype: DType = "float32",
    threads: int = 1,
) -> torch.Tensor:
    """Labels of +1 and -1 with probability 1/2 each, at [run, sample]; any slice of the whole.

    Args:
        seed: Key, 0 .. 2^64 - 1.
        stream: "labels", "test_labels" or "probe_labels".
        shape: (runs, samples), each >= 0.
        start: First (run, sample), each >= 0; start + shape <= (2^32, 2^34).
        dtype: "float32" | "bfloat16" | "float64", or the torch dtype.
        threads: At most so many threads, >= 1.
    Returns: Tensor [runs, samples] of `dtype`.
    Raises: As `words`; ValueError for another stream, TypeError for another dtype.
    """
    if stream not in LABEL_STREAMS:
        raise ValueError(f"stream: expected one of {', '.join(LABEL_STREAMS)}, got {stream!r}")
    if len(shape) != 2 or len(start) != 2:
        raise ValueError(f"shape, start: expected (runs, samples), got {shape!r} and {start!r}")
    chosen = check_dtype(dtype)
    (runs, samples), (run, sample) = shape, start
    word = words(seed, stream, (runs, 1, samples), (run, 0, sample), threads=threads)
    return _signs(word[:, 0], chosen)


def normal_runs(
    stream: str,
    keys: Sequence[int],
    shape: tuple[int, int],
    scales: Sequence[float],
    dtype: torch.dtype,
) -> torch.Tensor:
    """`normal` at run 0 of streams of several seeds, by one call.

    Args:
        stream: As in `normal`.
        keys: Seed of each run, [R].
        shape: (samples, dims).
        scales: Factor of each run, [R].
        dtype: As in `normal`.
    Returns: Tensor [R, samples, dims].
    Raises: As `normal`.
    """
    region = Region.check(0, stream, (1, *shape), (0, 0, 0), 0)
    factors = [check_scale(scale, name_of(dtype)) for scale in scales]
    out = empty((len(keys), *shape), dtype)
    _native.fill_normal_runs(
        writable_view(out),
        seeds=[integer("seed", key, 0, MAX_SEED) for key in keys],
        scales=factors,
        tag=region.tag,
        epoch=0,
        threads=thread_count(),
    )
    return out


def label_runs(keys: Sequence[int], stream: str, count: int, dtype: DType) -> torch.Tensor:
    """`labels` at run 0 of streams of several seeds, by one call, [R, count]."""
    return _signs(word_runs(keys, stream, count), check_dtype(dtype))


def word_runs(keys: Sequence[int], stream: str, count: int) -> npt.NDArray[np.uint32]:
    """`words` of sample 0 at run 0 of streams of several seeds, by one call, [R, count]."""
    require_memory(len(keys) * count * 4, f"{count} labels of {len(keys)} runs")
    word = np.empty((len(keys), 1, count), dtype=np.uint32)
    tag, threads = STREAM_TAGS[stream], thread_count()
    _native.fill_word_runs(word, seeds=keys, tag=tag, epoch=0, threads=threads)
    return word[:, 0]


def _signs(word: npt.NDArray[np.uint32], dtype: torch.dtype) -> torch.Tensor:
    """+1 where the top bit is 0, else -1."""
    bits = (word >> np.uint32(31)).astype(np.int8)
    return torch.from_numpy(1 - 2 * bits).to(dtype)


def thread_count() -> int:
    """Threads of the native generator: those of torch."""
    return min(torch.get_num_threads(), MAX_THREADS)  # any number gives the same values


def chunks(  # noqa: PLR0913  `normal` and the way to cut
    seed: int,
    stream: str,
    shape: Shape,
    start: Shape = (0, 0, 0),
    epoch: int = 0,
    scale: float = 1.0,
    dtype: DType = "float32",
    *,
    along: Literal["samples", "dims"] = "dims",
    size: int | None = None,
    threads: int = 1,
) -> Iterator[tuple[int, torch.Tensor]]:
    """`normal(...)` in pieces along one axis, all in one buffer that is used again.

    Args:
        seed: As in `normal`, and so are stream, shape, start, epoch, scale, dtype and threads.
        stream: See above.
        shape: See above.
        start: See above.
        epoch: See above.
        scale: See above.
        dtype: See above.
        along: The axis that is cut.
        size: Length of a piece along that axis, >= 1; None: about 1 MiB (at least one sample, or
            256 dims).
        threads: See above.
    Returns: Iterator of (offset, values): values[r, s, d] are those of the whole at that offset
        along the axis. They are valid until the next step; clone what must live longer.
    Raises: As `normal`, at the call, not at the first step; MemoryError if a piece does not fit.
    """
    region = Region.check(seed, stream, shape, start, epoch)
    chosen = check_dtype(dtype)
    factor = check_scale(scale, name_of(chosen))
    threads = integer("threads", threads, 1, MAX_THREADS)
    if along not in ("samples", "dims"):
        raise ValueError(f"along: expected samples or dims, got {along!r}")
    axis = 1 if along == "samples" else 2
    if size is None:
        size = chunk_length(region, axis, chosen.itemsize)
    size = max(1, min(integer("size", size, 1, 2**63 - 1), region.shape[axis]))
    others = region.size // max(1, region.shape[axis])
    buffer = empty((1, 1, others * size), chosen).view(-1)
    return (
        (offset, _filled(buffer, region.part(axis, offset, size), factor, threads))
        for offset in range(0, region.shape[axis], size)
    )


def chunk_length(region: Region, axis: int, itemsize: int) -> int:
    """Length along `axis` of a piece of about CHUNK_BYTES; along dims a multiple of TILE."""
    others = max(1, region.size // max(1, region.shape[axis]))
    length = max(1, CHUNK_BYTES // (others * itemsize))
    return length if axis == 1 else max(TILE, length // TILE * TILE)


def _filled(buffer: torch.Tensor, region: Region, scale: float, threads: int) -> torch.Tensor:
    values = buffer[: region.size].view(region.shape)
    _fill_normal(values, region, scale, threads)
    return values


def _fill_normal(
    out: torch.Tensor | npt.NDArray[Any], region: Region, scale: float, threads: int
) -> None:
    _native.fill_normal(
        writable_view(out),
        start=region.start,
        seed=region.seed,
        tag=region.tag,
        epoch=region.epoch,
        scale=scale,
        threads=threads,
    )


def _shape_or_that_of(out: object, shape: Shape | None) -> Shape:
    if shape is not None:
        return shape
    if not isinstance(out, torch.Tensor | np.ndarray):
        raise TypeError("shape: expected (runs, samples, dims) when `out` is not given, got None")
    return tuple(out.shape)


__all__ = [
    "NormalRuns",
    "chunks",
    "label_runs",
    "labels",
    "normal",
    "normal_runs",
    "thread_count",
    "word_runs",
    "words",
]

"""Gram matrix of a stream's rows without ever holding the rows.

G = X X^T with X[i, k] = scale * z(run, sample_i, dim_k), [samples, dims]. A chunk of dimensions is
made where it fits the second-level cache, multiplied there, and dropped.

Numerics: within a chunk of 512 to 1024 dimensions (by `samples` alone) products and sums are
float32, in several partial sums; chunks are added in float64 in the order of the dimensions. So
`threads` changes nothing; another instruction set may change last bits of a chunk's float32 sum.
Cost: samples^2 * dims / 2 multiply-adds; memory O(samples^2) and one chunk per thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import torch

from mmcl_fast import _native
from mmcl_fast.data.stream.memory import require_memory
from mmcl_fast.data.stream.region import MAX_THREADS, Region, check_scale, integer

MOST_CHUNK_DIMS = 1024 + 16  # csrc/core/gram.cpp


def streaming_gram(  # noqa: PLR0913  coordinates of a stream, as in `normal`
    seed: int,
    stream: str,
    samples: int,
    dims: int,
    *,
    scale: float = 1.0,
    start: Sequence[SupportsIndex] = (0, 0, 0),
    epoch: int = 0,
    threads: int = 1,
) -> torch.Tensor:
    """X X^T of `normal(seed, stream, (1, samples, dims), ...)`, X never held.

    Args:
        seed: Key, 0 .. 2^64 - 1.
        stream: A name in `mmcl_fast.stream_tags.STREAM_TAGS`.
        samples: Rows of X, >= 0.
        dims: Columns of X, >= 0.
        scale: Finite float32 factor of X.
        start: The run, the first sample and the first dim.
        epoch: 0 .. 2^24 - 1.
        threads: At most so many threads, >= 1.
    Returns: Symmetric float64 [samples, samples].
    Raises: As `normal`; MemoryError if the result and the work space would not fit.
    Numerics: float32 within a chunk, float64 across chunks; independent of `threads`.
    """
    region = Region.check(seed, stream, (1, samples, dims), start, epoch)
    factor = check_scale(scale, "float32")
    threads = integer("threads", threads, 1, MAX_THREADS)
    rows = region.shape[1]
    work = threads * (rows * rows * 8 + rows * MOST_CHUNK_DIMS * 4)
    require_memory(rows * rows * 8 + work, f"Gram matrix of {rows} samples by {threads} threads")
    out = np.empty((rows, rows))
    _native.streaming_gram(
        out,
        start=region.start,
        dims=region.shape[2],
        seed=region.seed,
        tag=region.tag,
        epoch=region.epoch,
        scale=factor,
        threads=threads,
    )
    return torch.from_numpy(out)


__all__ = ["streaming_gram"]

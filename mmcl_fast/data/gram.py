"""Gram matrix of a stream's rows without ever holding the rows.

G = X X^T with X[i, k] = scale * z(run, sample_i, dim_k), [samples, dims]. A chunk of dimensions is
made where it fits the second-level cache, multiplied there, and dropped.

Numerics: within a chunk (about 1 MiB, so 2560 dims for 100 samples) products and sums are
float32, as BLAS orders them; chunks are added in float64 in the order of the dimensions. Chunk
limits depend on `samples` alone, so `threads` changes nothing.
Cost: samples^2 * dims multiply-adds at most (BLAS syrk: half), O(samples^2) memory and one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import torch

from mmcl_fast.data._region import Region
from mmcl_fast.data.generate import chunks
from mmcl_fast.data.memory import require_memory


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
        stream: A name in `mmcl_fast.data.tags.STREAM_TAGS`.
        samples: Rows of X, >= 0.
        dims: Columns of X, >= 0.
        scale: Finite float32 factor of X.
        start: The run, the first sample and the first dim.
        epoch: 0 .. 2^24 - 1.
        threads: At most so many threads make the chunks; the product uses what NumPy's BLAS uses.
    Returns: Symmetric float64 [samples, samples].
    Raises: As `normal`; MemoryError if the result or a chunk does not fit.
    Numerics: float32 within a chunk, float64 across chunks; independent of `threads`.
    """
    shape = (1, samples, dims)
    Region.check(seed, stream, shape, start, epoch)
    require_memory(samples * samples * (8 + 4), f"Gram matrix of {samples} samples")
    pieces = chunks(seed, stream, shape, start, epoch, scale, threads=threads)
    total = np.zeros((samples, samples))
    product = np.empty((samples, samples), dtype=np.float32)
    for _, values in pieces:
        x = values[0].numpy()  # [samples, chunk]
        np.matmul(x, x.T, out=product)  # NumPy sees the same matrix twice and calls syrk
        total += product
    return torch.from_numpy(total)


__all__ = ["streaming_gram"]

"""Operands of matrix products whose bits must not depend on where a run stands in memory.

On AMD processors MKL rounds a product differently when an operand does not begin at a multiple of
16 bytes, and so does its batched product for each matrix of the batch. Two rules keep a run's
results equal for any batch and any address: an operand that is a whole allocation or a copy begins
at a multiple of 64 bytes (`aligned`), and matrices that follow each other in a batched product have
even sizes (`even`), so that each of them begins at a multiple of 16 bytes.
"""

from __future__ import annotations

from torch import Tensor

_BYTES = 64  # torch's own alignment on a CPU; a GPU's allocations begin at multiples of 512


def aligned(x: Tensor) -> Tensor:
    """The tensor itself if it begins at a multiple of 64 bytes, else a copy that does."""
    return x if x.data_ptr() % _BYTES == 0 else x.clone()


def even(count: int) -> int:
    """The smallest even number that is not below `count`."""
    return count + count % 2


__all__ = ["aligned", "even"]

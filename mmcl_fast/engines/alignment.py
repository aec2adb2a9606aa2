"""Alignment of the operands of matrix products, so that results do not depend on their address.

On AMD processors MKL rounds a product differently if an operand does not start at a multiple of 16
bytes; this includes each matrix of a batched product. Two rules make the results of a run equal for
any batch and address: single operands start at a multiple of 64 bytes (`aligned`), and matrices of
a batched product have even sizes (`even`), so that each of them starts at a multiple of 16 bytes.
"""

from __future__ import annotations

from torch import Tensor

_BYTES = 64  # torch's own alignment on a CPU; a GPU's allocations begin at multiples of 512


def aligned(x: Tensor) -> Tensor:
    """The tensor itself if it starts at a multiple of 64 bytes, else an aligned copy."""
    return x if x.data_ptr() % _BYTES == 0 else x.clone()


def even(count: int) -> int:
    """The smallest even number >= `count`."""
    return count + count % 2


__all__ = ["aligned", "even"]

"""Numbers between NumPy and Arrow without pandas.

Where pandas is installed, pyarrow's own conversions import it: a third of a second of each command.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def from_numpy(values: npt.NDArray[np.number]) -> pa.Array:
    """Numbers as an Arrow array that shares their memory where they are contiguous."""
    whole = np.ascontiguousarray(values)
    kind = pa.from_numpy_dtype(whole.dtype)
    return pa.Array.from_buffers(kind, len(whole), [None, pa.py_buffer(whole)])


def to_numpy(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Numbers without nulls as a NumPy array, read-only where it shares their memory.

    Raises: ValueError: there are nulls, or no numbers.
    """
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    is_number = pa.types.is_integer(whole.type) or pa.types.is_floating(whole.type)
    if whole.null_count or not is_number:
        raise ValueError(f"{whole.null_count} nulls among values of type {whole.type}")
    return np.from_dlpack(whole)


__all__ = ["from_numpy", "to_numpy"]

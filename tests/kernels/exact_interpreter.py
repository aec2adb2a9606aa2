"""Makes Triton's interpreter round as the hardware does, for comparisons bit for bit.

Overflow is silent, as there. Two operations differ in the stock interpreter; tests replace them,
kernels never work around them.

* `fma`: before Triton 3.9 it is a multiplication and then an addition, each rounded.
  (3.9 rounds once, and is left as it is.)
* float32 to bfloat16: the bits are cut off instead of rounded to nearest even.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from mmcl_fast.data.stream.stream_numpy import fma32

_stock_fma = InterpreterBuilder.create_fma
_stock_cast = InterpreterBuilder.cast_impl


def bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Upper halves of finite float32 values, rounded to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + (bits >> 16 & 1))) >> 16).astype(np.uint16)


def fma_rounds_once() -> bool:
    """Whether the interpreter's float32 fma, as it is now, rounds once."""
    a, c = (
        np.full(1, 1 + 2**-12, np.float32),
        np.full(1, -1 - 2**-11, np.float32),
    )  # a * a + c = 2^-24
    x, z = TensorHandle(a, tl.float32), TensorHandle(c, tl.float32)
    return bool(interpreter.interpreter_builder.create_fma(x, x, z).data[0] == 2**-24)  # exact


def _fma(self: Any, x: Any, y: Any, z: Any) -> Any:
    if z.data.dtype != np.float32:
        return _stock_fma(self, x, y, z)
    return TensorHandle(fma32(x.data, y.data, z.data), z.dtype.scalar)


def _cast(self: Any, src: Any, dst_type: Any) -> Any:
    if (src.dtype.scalar, dst_type.scalar) != (tl.float32, tl.bfloat16):
        return _stock_cast(self, src, dst_type)
    return TensorHandle(bfloat16_bits(src.data), tl.bfloat16)


@contextmanager
def exact_interpreter() -> Iterator[None]:
    """Within it, interpreted kernels give the bits that correctly rounding hardware gives."""
    fma = _stock_fma if fma_rounds_once() else _fma
    with (
        np.errstate(all="ignore"),  # no flag stops a GPU: a kernel may try and look afterwards
        mock.patch.object(InterpreterBuilder, "create_fma", fma),
        mock.patch.object(InterpreterBuilder, "cast_impl", _cast),
    ):
        yield

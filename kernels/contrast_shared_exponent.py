"""One exponential a score for weights with terms of both sides (`contrast_gradient.py`).

    w_ij = 2^(x_ij - t) (f_i + f_j)     f = scale * 2^(t - max)     t midway between all maxima

as long as the maxima are within 2^100 of each other. x exceeds either maximum by at most 1, so
2^(x - t) <= 2^51, also where both scales are 0. Weights below 2^-76 of the largest may be lost.
Maxima farther apart take one exponential per side.

Numerics contract: float32. Cost: every program reads all maxima.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import cdiv
from mmcl_fast.kernels.contrast_common import SHIFT_FP16, WeightTerms

_BLOCK = 8192  # rows of `_contrast_factors_kernel` at a time
SPREAD = tl.constexpr(100.0)  # of maxima with a common exponential: weights below 2^-76 may be lost


@triton.jit
def _span(max_ptr, low, high, N, BLOCK: tl.constexpr):
    """Least and largest maximum; those of rows with scale 0 bound the scores of the others."""
    for start in range(0, N, BLOCK):
        offs = (start + tl.arange(0, BLOCK)).to(tl.int64)
        maximum = tl.load(max_ptr + offs, mask=offs < N, other=tl.load(max_ptr))
        low, high = tl.minimum(low, maximum), tl.maximum(high, maximum)
    return low, high


@triton.jit(do_not_specialize=["R", "C"])
def _contrast_factors_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    row_max_ptr,
    row_scale_ptr,
    column_max_ptr,
    column_scale_ptr,
    row_factor_ptr,
    column_factor_ptr,
    reference_ptr,
    R: tl.int32,
    C: tl.int32,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: factors scale * 2^(t - max) of a block of both sides; t, or NaN for none."""
    low = tl.full([BLOCK], 2.0**120, tl.float32)
    low, high = _span(row_max_ptr, low, -low, R, BLOCK)
    low, high = _span(column_max_ptr, low, high, C, BLOCK)
    least, most = tl.min(low, 0), tl.max(high, 0)
    t = 0.5 * (least + most)
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    maximum = tl.load(row_max_ptr + offs, mask=offs < R, other=0.0)
    scale = tl.load(row_scale_ptr + offs, mask=offs < R, other=0.0)
    power = tl.exp2(tl.minimum(tl.maximum(t - maximum, -SPREAD), SPREAD) + SHIFT)
    tl.store(row_factor_ptr + offs, scale * power, mask=offs < R)
    maximum = tl.load(column_max_ptr + offs, mask=offs < C, other=0.0)
    scale = tl.load(column_scale_ptr + offs, mask=offs < C, other=0.0)
    power = tl.exp2(tl.minimum(tl.maximum(t - maximum, -SPREAD), SPREAD) + SHIFT)
    tl.store(column_factor_ptr + offs, scale * power, mask=offs < C)
    if tl.program_id(0) == 0:
        tl.store(reference_ptr, tl.where(most - least <= SPREAD, t, float("nan")))


class SharedExponent(NamedTuple):
    """The constant t and the factors of rows and columns for one exponential; see the module."""

    t: torch.Tensor | None = None  # [1], NaN where the maxima are too far apart
    row_factor: torch.Tensor | None = None  # [R]
    column_factor: torch.Tensor | None = None  # [C]

    @property
    def transposed(self) -> SharedExponent:
        """With rows and columns exchanged."""
        return SharedExponent(self.t, self.column_factor, self.row_factor)


def shared_exponent(rows: WeightTerms, columns: WeightTerms, dtype: torch.dtype) -> SharedExponent:
    """For weights with terms of both sides, of features of `dtype`."""
    t = rows.max_score.new_empty(1)
    row_factor = torch.empty_like(rows.max_score)
    column_factor = torch.empty_like(columns.max_score)
    r, c = len(row_factor), len(column_factor)
    with torch.cuda.device_of(t):
        _contrast_factors_kernel[(cdiv(max(r, c), _BLOCK),)](
            row_max_ptr=rows.max_score,
            row_scale_ptr=rows.scale,
            column_max_ptr=columns.max_score,
            column_scale_ptr=columns.scale,
            row_factor_ptr=row_factor,
            column_factor_ptr=column_factor,
            reference_ptr=t,
            R=r,
            C=c,
            SHIFT=SHIFT_FP16.value if dtype == torch.float16 else 0.0,
            BLOCK=_BLOCK,
            num_warps=16,
            enable_fp_fusion=True,
        )
    return SharedExponent(t, row_factor, column_factor)


__all__ = ["SharedExponent", "shared_exponent"]

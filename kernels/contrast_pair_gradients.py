"""Gradients of both sides of a contrast with positives on the diagonal, in one launch.

    query_i = rate (back sums_i - weight_i key_i)        rate = factor / temperature
    key_i   = rate (back sums_i - weight_i query_i)      without the second term from row N on
    dots_i  = -rate / temperature (back <query_i, sums_i> - weight_i <query_i, key_i>)

The two launches of `contrast_input_gradients.py` for what a small batch needs most; weight_i is the
positive's weight, the sum over both directions of a symmetric contrast, and `back` undoes the
factor of float16 weights.

Numerics contract: float32. Deterministic: no atomics. Cost: sums and features read once, sums
overwritten.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._launch import launch
from mmcl_fast.kernels._tiles import cdiv

_BLOCK_N, _BLOCK_D = 16, 128


@triton.jit
def _side(  # noqa: PLR0913  (inlined: no API)
    block, sums_ptr, own_ptr, other_ptr, weight_ptr, second_weight_ptr, dots_ptr, rate, dots_rate,
    N, R, D, stride_own, stride_other, BACK: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of the R rows of one side, of which the first N have a positive."""
    rows = (block * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    mask_n, has = rows < R, rows < N
    weight = tl.load(weight_ptr + rows, mask=has, other=0.0)
    if second_weight_ptr is not None:
        weight += tl.load(second_weight_ptr + rows, mask=has, other=0.0)
    dots = tl.zeros([BLOCK_N], tl.float32)
    for d in range(0, D, BLOCK_D):
        at_d = (d + tl.arange(0, BLOCK_D)).to(tl.int64)
        mask = mask_n[:, None] & (at_d < D)[None, :]
        at = rows[:, None] * D + at_d[None, :]
        total = tl.load(sums_ptr + at, mask=mask, other=0.0) * BACK
        at_other = rows[:, None] * stride_other + at_d[None, :]
        other = tl.load(other_ptr + at_other, mask=mask & has[:, None], other=0.0)
        total -= other.to(tl.float32) * weight[:, None]
        if dots_ptr is not None:
            at_own = rows[:, None] * stride_own + at_d[None, :]
            own = tl.load(own_ptr + at_own, mask=mask, other=0.0).to(tl.float32)
            dots += tl.sum(own * total, 1)
        tl.store(sums_ptr + at, total * rate, mask=mask)
    if dots_ptr is not None:
        tl.store(dots_ptr + rows, dots * dots_rate, mask=mask_n)


@triton.jit(do_not_specialize=["N", "M", "factor"])
def _contrast_pair_gradients_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    query_sums_ptr,
    key_sums_ptr,
    query_ptr,
    key_ptr,
    weight_ptr,
    second_weight_ptr,
    temperature_ptr,
    dots_ptr,
    N: tl.int32,
    M: tl.int32,
    D: tl.int32,
    stride_query: tl.int64,
    stride_key: tl.int64,
    factor: tl.float32,
    BACK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_N rows of the query, or of the key."""
    inverse = tl.div_rn(1.0, tl.load(temperature_ptr))
    rate = factor * inverse
    blocks, block = tl.cdiv(N, BLOCK_N), tl.program_id(0)
    if block < blocks:
        _side(
            block, query_sums_ptr, query_ptr, key_ptr, weight_ptr, second_weight_ptr, dots_ptr,
            rate, -rate * inverse, N, N, D, stride_query, stride_key, BACK, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    else:
        _side(
            block - blocks, key_sums_ptr, key_ptr, query_ptr, weight_ptr, second_weight_ptr, None,
            rate, 0.0, N, M, D, stride_key, stride_query, BACK, BLOCK_N, BLOCK_D,
        )  # fmt: skip


def contrast_pair_gradients_bwd(
    sums: tuple[torch.Tensor, torch.Tensor],
    features: tuple[torch.Tensor, torch.Tensor],
    weights: tuple[torch.Tensor, torch.Tensor | None],
    temperature: torch.Tensor,
    factor: float,
    *,
    back: float = 1.0,
    dots: bool = False,
) -> torch.Tensor | None:
    """Turns weighted sums of negatives into gradients, in place.

    Args:
        sums: Over negatives, of queries [N, D] and keys [M, D], float32, contiguous; M >= N.
        features: Query [N, D] and key [M, D], stride 1 along D.
        weights: Positive weights of the rows, [N], float32, and of the columns or None.
        temperature: 0-d, float32.
        factor: Of sums and weights.
        back: Of sums alone.
        dots: Return each query's part of the gradient of the temperature, [N], float32.
    """
    query, key = features
    (n, d), m = query.shape, key.shape[0]
    row_dots = weights[0].new_empty(n) if dots else None
    with torch.cuda.device_of(query):
        launch(
            _contrast_pair_gradients_kernel,
            (cdiv(n, _BLOCK_N) + cdiv(m, _BLOCK_N),),
            {
                "query_sums_ptr": sums[0],
                "key_sums_ptr": sums[1],
                "query_ptr": query,
                "key_ptr": key,
                "weight_ptr": weights[0],
                "second_weight_ptr": weights[1],
                "temperature_ptr": temperature,
                "dots_ptr": row_dots,
            },
            {
                "N": n,
                "M": m,
                "D": d,
                "stride_query": query.stride(0),
                "stride_key": key.stride(0),
                "factor": factor,
                "BACK": back,
                "BLOCK_N": _BLOCK_N,
                "BLOCK_D": _BLOCK_D,
            },
            {"num_warps": 4, "enable_fp_fusion": True},
        )
    return row_dots


__all__ = ["contrast_pair_gradients_bwd"]

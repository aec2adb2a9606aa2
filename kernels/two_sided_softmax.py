"""Both softmaxes of a block of scores: of rows over its columns, and of columns over its rows.

    x_ij = a s_ij
    row_max_i = max_j x_ij        row_sum_i = sum_j 2^(x_ij - row_max_i)
    row_weight_ij = 2^(x_ij - row_max_i)        and the same along columns

A block between two sets of samples that are negatives of each other serves the queries of both: one
pass for their statistics, a second one for their weights. Scores are products in memory, so
features may have any length. All pairs count; nothing is masked.

Numerics contract: float32; weights lie within 0..1 if maxima are no lower than all scores, and are
rounded to the dtype of their tensor, relative error 2^-8 for bfloat16, 2^-11 for
float16. Sums add unrounded terms. exp2 is the hardware's, see `contrast_common.py`.

Deterministic: no atomics; each program has a tile, and partial results are merged in a fixed order.
Cost: 2 exponentials a score each, 1 without columns; 4 bytes a score read each time, and the
weights written.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import Tile, arch_of, tile_for
from mmcl_fast.kernels.contrast_common import FLOOR

# Scores are rounded before the subtraction of the maximum, so no power exceeds 1.
LAUNCH_OPTIONS = {"enable_fp_fusion": False}


class SoftmaxSums(NamedTuple):
    """Largest score and sum of 2^(x - top), [N] or [M] each, float32."""

    max_score: torch.Tensor
    exp_sum: torch.Tensor


@triton.jit(do_not_specialize=["N", "M"])
def _two_sided_statistics_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    scores_ptr,
    row_max_ptr,
    row_sum_ptr,
    column_max_ptr,
    column_sum_ptr,
    factor: tl.float32,
    N: tl.int32,
    M: tl.int32,
    P: tl.int32,
    stride_n: tl.int64,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """One program: a tile; partial results by blocks of columns (of rows) for rows (columns)."""
    num_m = tl.cdiv(P, BLOCK_M)
    pid_n, pid_m = tl.program_id(0) // num_m, tl.program_id(0) % num_m
    offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_n, mask_m = offs_n < N, offs_m < M
    at_n, at_m = offs_n.to(tl.int64), offs_m.to(tl.int64)
    stored_mask = (
        mask_n[:, None] & (offs_m < P)[None, :]
    )  # P is a multiple of a vector, M need not be
    s = tl.load(
        scores_ptr + (at_n[:, None] * stride_n + at_m[None, :]), mask=stored_mask, other=0.0
    )
    x = tl.where(mask_n[:, None] & mask_m[None, :], s * factor, FLOOR)
    row_max = tl.max(x, 1)
    row_sum = tl.sum(tl.exp2(x - row_max[:, None]), 1)
    row = pid_m.to(tl.int64) * N + at_n
    tl.store(row_max_ptr + row, row_max, mask=mask_n)
    tl.store(row_sum_ptr + row, row_sum, mask=mask_n)
    if column_max_ptr is not None:
        column_max = tl.max(x, 0)
        column_sum = tl.sum(tl.exp2(x - column_max[None, :]), 0)
        column = pid_n.to(tl.int64) * M + at_m
        tl.store(column_max_ptr + column, column_max, mask=mask_m)
        tl.store(column_sum_ptr + column, column_sum, mask=mask_m)


@triton.jit(do_not_specialize=["N", "M"])
def _two_sided_weights_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    scores_ptr,
    row_max_ptr,
    column_max_ptr,
    row_weights_ptr,
    column_weights_ptr,
    factor: tl.float32,
    N: tl.int32,
    M: tl.int32,
    P: tl.int32,
    stride_n: tl.int64,
    stride_wn: tl.int64,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """One program: a tile of both weights."""
    num_m = tl.cdiv(P, BLOCK_M)
    pid_n, pid_m = tl.program_id(0) // num_m, tl.program_id(0) % num_m
    offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_n, mask_m = offs_n < N, offs_m < M
    at_n, at_m = offs_n.to(tl.int64), offs_m.to(tl.int64)
    stored_mask = mask_n[:, None] & (offs_m < P)[None, :]
    s = tl.load(
        scores_ptr + (at_n[:, None] * stride_n + at_m[None, :]), mask=stored_mask, other=0.0
    )
    x = tl.where(mask_m[None, :], s * factor, float("-inf"))
    at = at_n[:, None] * stride_wn + at_m[None, :]
    row_max = tl.load(row_max_ptr + at_n, mask=mask_n, other=0.0)
    weights = tl.exp2(x - row_max[:, None])
    tl.store(row_weights_ptr + at, weights.to(row_weights_ptr.dtype.element_ty), mask=stored_mask)
    if column_max_ptr is not None:
        column_max = tl.load(column_max_ptr + at_m, mask=mask_m, other=0.0)
        weights = tl.exp2(x - column_max[None, :])
        stored = weights.to(column_weights_ptr.dtype.element_ty)
        tl.store(column_weights_ptr + at, stored, mask=stored_mask)


def two_sided_fwd(
    scores: torch.Tensor, m: int, factor: float, *, columns: bool
) -> tuple[SoftmaxSums, SoftmaxSums | None]:
    """Statistics of the rows of a block and, on request, of its columns.

    Args:
        scores: s, [N, P], float32, stride 1 along P, not empty; quick where P is a multiple of 16.
        m: M <= P: number of columns; later ones are ignored.
        factor: a.
        columns: Return the statistics of columns as well.
    """
    n, p = scores.shape
    tile = _tile("two_sided_statistics", scores)
    blocks_n, blocks_m = triton.cdiv(n, tile.block_n), triton.cdiv(p, tile.block_m)
    rows = scores.new_empty(2, blocks_m, n)
    column_parts = scores.new_empty(2, blocks_n, m) if columns else None
    with torch.cuda.device_of(scores):
        _two_sided_statistics_kernel[(blocks_n * blocks_m,)](
            scores_ptr=scores,
            row_max_ptr=rows[0],
            row_sum_ptr=rows[1],
            column_max_ptr=None if column_parts is None else column_parts[0],
            column_sum_ptr=None if column_parts is None else column_parts[1],
            factor=factor,
            N=n,
            M=m,
            P=p,
            stride_n=scores.stride(0),
            BLOCK_N=tile.block_n,
            BLOCK_M=tile.block_m,
            num_warps=tile.num_warps,
            **LAUNCH_OPTIONS,
        )
    return _merged(rows), None if column_parts is None else _merged(column_parts)


def two_sided_bwd(
    scores: torch.Tensor,
    m: int,
    factor: float,
    maxima: tuple[torch.Tensor, torch.Tensor | None],
    weights: tuple[torch.Tensor, torch.Tensor | None],
) -> None:
    """Fills the weights of a block.

    Args:
        scores: s, [N, P], as for `two_sided_fwd`.
        m: M <= P: number of columns; the weights of later ones are 0.
        factor: a.
        maxima: Of rows [N], and of columns [M] if their weights are requested; float32.
        weights: Of rows and of columns, [N, P] each, of one shape and strides, stride 1 along P;
            float32 ones may be `scores` itself.
    """
    n, p = scores.shape
    tile = _tile("two_sided_weights", scores)
    grid = (triton.cdiv(n, tile.block_n) * triton.cdiv(p, tile.block_m),)
    with torch.cuda.device_of(scores):
        _two_sided_weights_kernel[grid](
            scores_ptr=scores,
            row_max_ptr=maxima[0],
            column_max_ptr=maxima[1],
            row_weights_ptr=weights[0],
            column_weights_ptr=weights[1],
            factor=factor,
            N=n,
            M=m,
            P=p,
            stride_n=scores.stride(0),
            stride_wn=weights[0].stride(0),
            BLOCK_N=tile.block_n,
            BLOCK_M=tile.block_m,
            num_warps=tile.num_warps,
            **LAUNCH_OPTIONS,
        )


def _tile(kernel: str, like: torch.Tensor) -> Tile:
    return tile_for(kernel, arch_of(_two_sided_statistics_kernel, like), 4, "any")


def _merged(partial: torch.Tensor) -> SoftmaxSums:
    maxima, sums = partial
    max_score = maxima.amax(dim=0)
    return SoftmaxSums(max_score, (sums * torch.exp2(maxima - max_score)).sum(dim=0))


__all__ = ["SoftmaxSums", "two_sided_bwd", "two_sided_fwd"]

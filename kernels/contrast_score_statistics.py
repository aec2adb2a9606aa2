"""Sum of exponentials of each row, and each column, of products in memory; any length of features.

What `contrast_statistics.py` finds from features, from the products <q_i, k_j>: `x` is a factor and
a shift away. Each program has a tile, all of it on its way from memory at once; each tile has a
partial result for its rows and one for its columns.

Numerics contract: `contrast_common.py`. Deterministic: no atomics.
Cost: 2 exponentials a score with columns, 1 without; reads 4 bytes a score, once, and writes 8
bytes a row of each tile and 8 a column.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import arch_of, cdiv, tile_for
from mmcl_fast.kernels.contrast_common import (
    FLOOR,
    Pairs,
    is_plain,
    load_labels,
    load_positive,
    mask_scores,
    softplus,
    units,
)
from mmcl_fast.kernels.contrast_statistics import Partial


@triton.jit(do_not_specialize=["N", "M", "regular", "first"])
def _contrast_scores_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    scores_ptr,
    temperature_ptr,
    bias_ptr,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    row_top_ptr,
    row_total_ptr,
    found_ptr,
    column_top_ptr,
    column_total_ptr,
    N: tl.int32,
    M: tl.int32,
    regular: tl.int32,
    first: tl.int32,
    stride_n: tl.int64,
    SIGMOID: tl.constexpr,
    POSITIVE: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """One program: one tile, all on the first grid axis, the one without limit."""
    num_m = tl.cdiv(M, BLOCK_M)
    pid_n, pid_m = tl.program_id(0) // num_m, tl.program_id(0) % num_m
    a, b = units(temperature_ptr, bias_ptr)
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = offs_n < N
    offs_k = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_k = offs_k < M
    # Rows are padded to their stride, whose multiple of 16 lets whole vectors be moved.
    at = offs_n.to(tl.int64)[:, None] * stride_n + offs_k[None, :]
    mask = mask_n[:, None] & (offs_k < stride_n)[None, :]
    x = tl.load(scores_ptr + at, mask=mask, other=0.0) * a + b
    plain = is_plain(first + pid_n * BLOCK_N, pid_m * BLOCK_M, BLOCK_N, BLOCK_M, RULE)
    found = tl.zeros([BLOCK_N], tl.float32)
    if not (plain & ((pid_m + 1) * BLOCK_M <= M) & ((pid_n + 1) * BLOCK_N <= N)):
        positive = load_positive(positive_ptr, first + offs_n, offs_n, mask_n, POSITIVE)
        if POSITIVE != "none":
            found += tl.sum(tl.where(offs_k[None, :] == positive[:, None], x, 0.0), 1)
        label_q = load_labels(query_label_ptr, offs_n, mask_n)[:, None]
        label_k = load_labels(key_label_ptr, offs_k, offs_k < regular)[None, :]
        query = (first + offs_n)[:, None], label_q, positive[:, None]
        key = offs_k[None, :], label_k
        x = mask_scores(x, query, key, mask_n[:, None] & mask_k[None, :], regular, RULE)
    row = pid_m.to(tl.int64) * N + offs_n
    column = pid_n.to(tl.int64) * M + offs_k
    if SIGMOID:
        x = softplus(x)
        tl.store(row_top_ptr + row, tl.full([BLOCK_N], FLOOR, tl.float32), mask=mask_n)
        tl.store(row_total_ptr + row, tl.sum(x, 1), mask=mask_n)
        if column_total_ptr is not None:
            tl.store(column_total_ptr + column, tl.sum(x, 0), mask=mask_k)
    else:
        top = tl.maximum(tl.max(x, 1), FLOOR)
        tl.store(row_top_ptr + row, top, mask=mask_n)
        tl.store(row_total_ptr + row, tl.sum(tl.exp2(x - top[:, None]), 1), mask=mask_n)
        if column_total_ptr is not None:
            top = tl.maximum(tl.max(x, 0), FLOOR)
            tl.store(column_top_ptr + column, top, mask=mask_k)
            tl.store(column_total_ptr + column, tl.sum(tl.exp2(x - top[None, :]), 0), mask=mask_k)
    if POSITIVE != "none":
        tl.store(found_ptr + row, found, mask=mask_n)


def scores_statistics_fwd(
    scores: torch.Tensor, columns_of_scores: int, pairs: Pairs, *, columns: bool
) -> tuple[Partial, Partial | None]:
    """Partial statistics of rows and, if asked for, columns.

    Args:
        scores: [N, P], float32, contiguous; P is `columns_of_scores` rounded up to a multiple of
            16, what follows is not looked at.
        columns_of_scores: M.
        pairs: Negatives and units.
        columns: Also those of columns.
    """
    n, m = len(scores), columns_of_scores
    tile = tile_for("contrast_scores", arch_of(_contrast_scores_kernel, scores), 4, "any")
    blocks_n, blocks_m = cdiv(n, tile.block_n), cdiv(m, tile.block_m)
    rows = Partial(*(scores.new_empty(blocks_m, n) for _ in range(3)))
    others = Partial(*(scores.new_empty(blocks_n, m) for _ in range(2))) if columns else None
    with torch.cuda.device_of(scores):
        _contrast_scores_kernel[(blocks_n * blocks_m,)](
            scores_ptr=scores,
            row_top_ptr=rows.top,
            row_total_ptr=rows.total,
            found_ptr=rows.found,
            column_top_ptr=None if others is None else others.top,
            column_total_ptr=None if others is None else others.total,
            N=n,
            M=m,
            stride_n=scores.stride(0),
            BLOCK_N=tile.block_n,
            BLOCK_M=tile.block_m,
            num_warps=tile.num_warps,
            enable_fp_fusion=True,
            **pairs.arguments(m),
        )
    return rows, others


__all__ = ["scores_statistics_fwd"]

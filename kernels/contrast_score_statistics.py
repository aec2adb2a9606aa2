"""Sum of exponentials of each row, and each column, of products in memory; any length of features.

The statistics of `contrast_statistics.py`, from products <q_i, k_j> instead of features. Each
program loads one tile at once, and stores a partial result for its rows and one for its columns.

Numerics contract: `contrast_common.py`. Deterministic: no atomics.
Cost: 2 exponentials a score with columns, 1 without; reads 4 bytes a score, once, and writes 8
bytes a row of each tile and 8 a column.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._launch import launch
from mmcl_fast.kernels._tiles import arch_of, cdiv, tile_for
from mmcl_fast.kernels.contrast_common import (
    FLOOR,
    Pairs,
    is_plain,
    load_labels,
    load_positive,
    load_tile,
    mask_scores,
    softplus,
    units,
)
from mmcl_fast.kernels.contrast_statistics import Partial


@triton.jit
def store_statistics(  # noqa: PLR0913  (inlined: no API)
    x,
    tile,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    row_max_ptr,
    row_sum_ptr,
    positive_score_ptr,
    column_max_ptr,
    column_sum_ptr,
    N,
    M,
    regular,
    first,
    SIGMOID: tl.constexpr,
    RULE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Stores the partial statistics of the scores x of tile (pid_n, pid_m), unmasked as yet."""
    pid_n, pid_m = tile
    POSITIVE: tl.constexpr = RULE[1]
    offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = offs_n < N
    offs_k = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_k = offs_k < M
    plain = is_plain(first + pid_n * BLOCK_N, pid_m * BLOCK_M, BLOCK_N, BLOCK_M, RULE)
    positive_score = tl.zeros([BLOCK_N], tl.float32)
    if not (plain & ((pid_m + 1) * BLOCK_M <= M) & ((pid_n + 1) * BLOCK_N <= N)):
        positive = load_positive(positive_ptr, first + offs_n, offs_n, mask_n, POSITIVE)
        if POSITIVE != "none":
            positive_score += tl.sum(tl.where(offs_k[None, :] == positive[:, None], x, 0.0), 1)
        label_q = load_labels(query_label_ptr, offs_n, mask_n)[:, None]
        label_k = load_labels(key_label_ptr, offs_k, offs_k < regular)[None, :]
        query = (first + offs_n)[:, None], label_q, positive[:, None]
        key = offs_k[None, :], label_k
        x = mask_scores(x, query, key, mask_n[:, None] & mask_k[None, :], regular, RULE)
    row = pid_m.to(tl.int64) * N + offs_n
    column = pid_n.to(tl.int64) * M + offs_k
    if SIGMOID:
        x = softplus(x)
        tl.store(row_max_ptr + row, tl.full([BLOCK_N], FLOOR, tl.float32), mask=mask_n)
        tl.store(row_sum_ptr + row, tl.sum(x, 1), mask=mask_n)
        if column_sum_ptr is not None:
            tl.store(column_sum_ptr + column, tl.sum(x, 0), mask=mask_k)
    else:
        maximum = tl.maximum(tl.max(x, 1), FLOOR)
        tl.store(row_max_ptr + row, maximum, mask=mask_n)
        tl.store(row_sum_ptr + row, tl.sum(tl.exp2(x - maximum[:, None]), 1), mask=mask_n)
        if column_sum_ptr is not None:
            maximum = tl.maximum(tl.max(x, 0), FLOOR)
            tl.store(column_max_ptr + column, maximum, mask=mask_k)
            tl.store(column_sum_ptr + column, tl.sum(tl.exp2(x - maximum[None, :]), 0), mask=mask_k)
    if POSITIVE != "none":
        tl.store(positive_score_ptr + row, positive_score, mask=mask_n)


@triton.jit(do_not_specialize=["N", "M", "regular", "first"])
def _contrast_scores_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    scores_ptr,
    temperature_ptr,
    bias_ptr,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    row_max_ptr,
    row_sum_ptr,
    positive_score_ptr,
    column_max_ptr,
    column_sum_ptr,
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
    x, _, _ = load_tile(scores_ptr, (pid_n, pid_m), N, stride_n, BLOCK_N, BLOCK_M)
    store_statistics(
        x * a + b, (pid_n, pid_m), positive_ptr, query_label_ptr, key_label_ptr, row_max_ptr,
        row_sum_ptr, positive_score_ptr, column_max_ptr, column_sum_ptr, N, M, regular, first,
        SIGMOID, RULE, BLOCK_N, BLOCK_M,
    )  # fmt: skip


def scores_statistics_fwd(
    scores: torch.Tensor, columns_of_scores: int, pairs: Pairs, *, columns: bool
) -> tuple[Partial, Partial | None]:
    """Partial statistics of rows and, on request, of columns.

    Args:
        scores: [N, P], float32, contiguous; P is `columns_of_scores` rounded up to a multiple of
            16; later columns are ignored.
        columns_of_scores: M.
        pairs: Negatives, temperature and bias.
        columns: Return the statistics of columns as well.
    """
    n, m = len(scores), columns_of_scores
    tile = tile_for("contrast_scores", arch_of(_contrast_scores_kernel, scores), 4, "any")
    blocks_n, blocks_m = cdiv(n, tile.block_n), cdiv(m, tile.block_m)
    rows = Partial(*(scores.new_empty(blocks_m, n) for _ in range(3)))
    column_parts = Partial(*(scores.new_empty(blocks_n, m) for _ in range(2))) if columns else None
    with torch.cuda.device_of(scores):
        launch(
            _contrast_scores_kernel,
            (blocks_n * blocks_m,),
            {
                "scores_ptr": scores,
                "row_max_ptr": rows.max_score,
                "row_sum_ptr": rows.exp_sum,
                "positive_score_ptr": rows.positive_score,
                "column_max_ptr": None if column_parts is None else column_parts.max_score,
                "column_sum_ptr": None if column_parts is None else column_parts.exp_sum,
                **pairs.tensors(),
            },
            {
                "N": n,
                "M": m,
                "stride_n": scores.stride(0),
                "BLOCK_N": tile.block_n,
                "BLOCK_M": tile.block_m,
                **pairs.numbers(m),
            },
            {"num_warps": tile.num_warps, "enable_fp_fusion": True},
        )
    return rows, column_parts


__all__ = ["scores_statistics_fwd", "store_statistics"]

"""Gradient weights of a block of scores, for features of any length.

    w_ij = shift * ( 2^(x_ij - row_top_i) row_scale_i  +  2^(x_ij - column_top_j) column_scale_j )

for negative pairs, 0 for others; `shift` is 2^14 for float16 weights, else 1; the caller divides.
With matrix products before (scores) and after (dQ, dK) it is the large-D form of
`contrast_gradient.py`, whose numerics contract holds here too: scores float32, weights rounded to
the features' dtype. float32 weights overwrite the products; 16-bit ones have a block of their own.

Deterministic: one program per tile, partial row sums for each block of columns.
Cost: 1 exponential a score for each side with a scale; reads 4 bytes a score, writes 2 or 4.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._launch import launch
from mmcl_fast.kernels._tiles import arch_of, cdiv, tile_for
from mmcl_fast.kernels.contrast_common import (
    SHIFT_FP16,
    Pairs,
    WeightTerms,
    is_plain,
    load_labels,
    load_positive,
    load_tile,
    mask_scores,
    sigmoid,
    units,
)


@triton.jit
def tile_weights(  # noqa: PLR0913  (inlined: no API)
    x,
    tile,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    row_max_ptr,
    row_scale_ptr,
    column_max_ptr,
    column_scale_ptr,
    N,
    M,
    regular,
    first,
    SIGMOID: tl.constexpr,
    RULE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Weights of the scores x of tile (pid_n, pid_m), unmasked as yet; float32, without shift."""
    pid_n, pid_m = tile
    offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = offs_n < N
    offs_k = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_k = offs_k < M
    plain = is_plain(first + pid_n * BLOCK_N, pid_m * BLOCK_M, BLOCK_N, BLOCK_M, RULE)
    # Rows past the end too: their scores of 0 may be far above a maximum of the columns.
    if not (plain & ((pid_m + 1) * BLOCK_M <= M) & ((pid_n + 1) * BLOCK_N <= N)):
        positive = load_positive(positive_ptr, first + offs_n, offs_n, mask_n, RULE[1])
        label_q = load_labels(query_label_ptr, offs_n, mask_n)[:, None]
        label_k = load_labels(key_label_ptr, offs_k, offs_k < regular)[None, :]
        query = (first + offs_n)[:, None], label_q, positive[:, None]
        key = offs_k[None, :], label_k
        x = mask_scores(x, query, key, mask_n[:, None] & mask_k[None, :], regular, RULE)
    w = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    if SIGMOID:
        x = sigmoid(x)
    if row_scale_ptr is not None:
        row = offs_n.to(tl.int64)
        maximum = tl.load(row_max_ptr + row, mask=mask_n, other=0.0)[:, None]
        scale = tl.load(row_scale_ptr + row, mask=mask_n, other=0.0)[:, None]
        w += (x if SIGMOID else tl.exp2(x - maximum)) * scale
    if column_scale_ptr is not None:
        column = offs_k.to(tl.int64)
        maximum = tl.load(column_max_ptr + column, mask=mask_k, other=0.0)[None, :]
        scale = tl.load(column_scale_ptr + column, mask=mask_k, other=0.0)[None, :]
        w += (x if SIGMOID else tl.exp2(x - maximum)) * scale
    return w


@triton.jit(do_not_specialize=["N", "M", "regular", "first"])
def _contrast_weights_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    scores_ptr,
    weights_ptr,
    temperature_ptr,
    bias_ptr,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    row_max_ptr,
    row_scale_ptr,
    column_max_ptr,
    column_scale_ptr,
    weight_sum_ptr,
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
    """One program: one tile of the block, all on the first grid axis, the one without limit."""
    num_m = tl.cdiv(M, BLOCK_M)
    pid_n, pid_m = tl.program_id(0) // num_m, tl.program_id(0) % num_m
    a, b = units(temperature_ptr, bias_ptr)
    ELEMENT: tl.constexpr = weights_ptr.dtype.element_ty
    SHIFT: tl.constexpr = SHIFT_FP16 if weights_ptr.dtype.element_ty == tl.float16 else 0.0
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    x, at, mask = load_tile(scores_ptr, (pid_n, pid_m), N, stride_n, BLOCK_N, BLOCK_M)
    w = tile_weights(
        x * a + b, (pid_n, pid_m), positive_ptr, query_label_ptr, key_label_ptr, row_max_ptr,
        row_scale_ptr, column_max_ptr, column_scale_ptr, N, M, regular, first, SIGMOID, RULE,
        BLOCK_N, BLOCK_M,
    )  # fmt: skip
    tl.store(weights_ptr + at, (w * (2.0**SHIFT)).to(ELEMENT), mask=mask)
    if weight_sum_ptr is not None:
        offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
        row = pid_m.to(tl.int64) * N + offs_n
        tl.store(weight_sum_ptr + row, tl.sum(w, 1), mask=offs_n < N)


def scores_weights_bwd(
    scores: torch.Tensor,
    weights: torch.Tensor,
    columns_of_scores: int,
    pairs: Pairs,
    sides: tuple[WeightTerms | None, WeightTerms | None],
    *,
    weight_sum: bool = False,
) -> torch.Tensor | None:
    """Fills `weights` with the weights of the products `scores`, times 2^14 in float16.

    Args:
        scores: [N, P], float32, contiguous, P a multiple of 16.
        weights: [N, P], contiguous, of the features' dtype; may be `scores`.
        columns_of_scores: M <= P; weights beyond are 0.
        pairs: Negatives, temperature and bias.
        sides: Terms of rows and of columns; one of them at least.
        weight_sum: Return the row sums of weights as well, without the factor 2^14.

    Returns: [N], float32, or None.
    """
    rows, columns = sides
    n, m = len(scores), columns_of_scores
    tile = tile_for(
        "contrast_weights", arch_of(_contrast_weights_kernel, scores), weights.element_size(), "any"
    )
    blocks = cdiv(m, tile.block_m)
    grid = (cdiv(n, tile.block_n) * blocks,)
    weight_sums = scores.new_empty(blocks, n) if weight_sum else None
    with torch.cuda.device_of(scores):
        launch(
            _contrast_weights_kernel,
            grid,
            {
                "scores_ptr": scores,
                "weights_ptr": weights,
                "row_max_ptr": None if rows is None else rows.max_score,
                "row_scale_ptr": None if rows is None else rows.scale,
                "column_max_ptr": None if columns is None else columns.max_score,
                "column_scale_ptr": None if columns is None else columns.scale,
                "weight_sum_ptr": weight_sums,
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
            {
                "num_warps": tile.num_warps,
                "num_stages": tile.num_stages,
                "enable_fp_fusion": True,
            },
        )
    return None if weight_sums is None else weight_sums.sum(dim=0)


__all__ = ["scores_weights_bwd", "tile_weights"]

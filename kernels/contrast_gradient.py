"""Weighted sums of features, with weights from softmax statistics; one program per block of rows.

    out_i = sum_j w_ij column_j     weight_sum_i = sum_j w_ij     over the negative pairs (i, j)
    w_ij = shift * ( 2^(x_ij - row_max_i) row_scale_i  +  2^(x_ij - column_max_j) column_scale_j )

Rows and columns are queries and keys, or keys and queries: one kernel gives dQ and dK. A side
without scale has no term. Sigmoid form: both exponentials are 1 / (1 + 2^-x). x as in
`contrast_common.py`.

Numerics contract: scores and sums float32. The weights w are rounded to the features' dtype before
the product, so that 16-bit features use tensor cores: with u = 2^-8 (bfloat16), 2^-11 (float16),
0 (float32: "ieee" products), |error of out_i| <= u * sum_j |w_ij column_j| beyond that of float32.
A row with its own term alone is multiplied by `row_scale` in float32 afterwards. float16 has few
exponents: its weights are multiplied by 2^14 (`shift`, divided out at the end); those below 2^-28
then have an error of 2^-39. Scales must be within -1..1.

Where both sides have a term, one exponential a score serves both (`contrast_shared_exponent.py`).

Deterministic: no atomics, sums in the order of the columns. Where few rows would leave the GPU
idle, the columns are cut into ranges with partial sums, by sizes alone.

Cost: 4*N*M*D flop, 1 exponential a score (2 with masks or distant maxima); reads (rows / block_n)
times the columns, mostly from L2; writes 4 bytes an element of `out`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import arch_of, cdiv, tile_for
from mmcl_fast.kernels.contrast_common import (
    SHIFT_FP16,
    Pairs,
    WeightTerms,
    block_d,
    load_block,
    load_full,
    load_labels,
    load_positive,
    mask_scores,
    masked_blocks,
    masked_start,
    plain_start,
    sigmoid,
    units,
)
from mmcl_fast.kernels.contrast_shared_exponent import SharedExponent
from mmcl_fast.kernels.contrast_statistics import column_ranges


@triton.jit
def _terms(x, max_score, SIGMOID: tl.constexpr):
    return sigmoid(x) if SIGMOID else tl.exp2(x - max_score)


@triton.jit
def _masked_scores(  # noqa: PLR0913  (inlined: no API)
    x,
    offs_n,
    offs_m,
    mask_m,
    row_pairs,
    column_pairs,
    RULE: tl.constexpr,
    ROWS_ARE_KEYS: tl.constexpr,
):
    """Scores of a block, -inf where a pair is no negative.

    row_pairs: (labels, positives) of the rows. column_pairs: pointers to those of the columns.
    """
    row_label, row_positive = row_pairs
    positive_ptr, query_label_ptr, key_label_ptr, regular, first = column_pairs
    if ROWS_ARE_KEYS:
        offs_q = first + offs_m
        positive = load_positive(positive_ptr, offs_q, offs_m, mask_m, RULE[1])
        label_q = load_labels(query_label_ptr, offs_m, mask_m)
        query = offs_q[None, :], label_q[None, :], positive[None, :]
        key = offs_n[:, None], row_label[:, None]
    else:
        query = (first + offs_n)[:, None], row_label[:, None], row_positive[:, None]
        label_k = load_labels(key_label_ptr, offs_m, offs_m < regular)
        key = offs_m[None, :], label_k[None, :]
    return mask_scores(x, query, key, mask_m[None, :], regular, RULE)


@triton.jit
def _add_block(  # noqa: PLR0913  (inlined: no API)
    acc,
    weight_sum,
    rows,
    scaling,
    row_terms,
    columns,
    start,
    end,
    D,
    row_pairs,
    column_pairs,
    RULE: tl.constexpr,
    SIGMOID: tl.constexpr,
    SHIFT: tl.constexpr,
    ROWS_ARE_KEYS: tl.constexpr,
    WEIGHT_SUM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASKED: tl.constexpr,
):
    """(acc, weight_sum) plus one block of columns. MASKED: some of its pairs may be no negatives.

    row_terms: (offsets, maximum, scale, factor) of the rows, None where the weights have none.
    columns: (features, stride, maximum, scale, factor), pointers to those of all columns.
    """
    a, b, t = scaling
    offs_n, row_max, row_scale, row_factor = row_terms
    column_ptr, stride_column, column_max_ptr, column_scale_ptr, column_factor_ptr = columns
    offs_m, mask_m, features = load_block(
        column_ptr, start, end, stride_column, D, BLOCK_M, BLOCK_D, MASKED
    )
    at = offs_m.to(tl.int64)
    x = tl.dot(rows, tl.trans(features), input_precision="ieee")
    if MASKED:
        x = _masked_scores(
            x * a + b, offs_n, offs_m, mask_m, row_pairs, column_pairs, RULE, ROWS_ARE_KEYS
        )
        if column_scale_ptr is None:
            w = sigmoid(x) * 2.0**SHIFT if SIGMOID else tl.exp2(x - (row_max - SHIFT)[:, None])
        else:
            column_max = tl.load(column_max_ptr + at, mask=mask_m, other=0.0)
            column_scale = tl.load(column_scale_ptr + at, mask=mask_m, other=0.0)
            w = _terms(x, column_max[None, :], SIGMOID) * column_scale[None, :]
            if row_scale is not None:
                w += _terms(x, row_max[:, None], SIGMOID) * row_scale[:, None]
            w *= 2.0**SHIFT
    elif SIGMOID:
        w = sigmoid(x * a + b) * (2.0**SHIFT)
        if column_scale_ptr is not None:
            scale = tl.load(column_scale_ptr + at)[None, :]
            w *= scale if row_scale is None else row_scale[:, None] + scale
    elif row_factor is not None:
        column_factor = tl.load(column_factor_ptr + at)
        w = tl.exp2(x * a + (b - t)) * (row_factor[:, None] + column_factor[None, :])
    elif column_scale_ptr is None:
        w = tl.exp2(x * a + (b + SHIFT - row_max)[:, None])
    else:
        column_max, column_scale = tl.load(column_max_ptr + at), tl.load(column_scale_ptr + at)
        w = tl.exp2(x * a + (b + SHIFT - column_max)[None, :]) * column_scale[None, :]
    if WEIGHT_SUM:
        weight_sum += tl.sum(w, 1)
    acc = tl.dot(w.to(rows.dtype), features, acc, input_precision="ieee")
    return acc, weight_sum


@triton.jit(do_not_specialize=["R", "C", "regular", "first", "split"])
def _contrast_gradient_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    row_ptr,
    column_ptr,
    temperature_ptr,
    bias_ptr,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    row_max_ptr,
    row_scale_ptr,
    column_max_ptr,
    column_scale_ptr,
    row_factor_ptr,
    column_factor_ptr,
    reference_ptr,
    out_ptr,
    weight_sum_ptr,
    R: tl.int32,
    C: tl.int32,
    D: tl.int32,
    regular: tl.int32,
    first: tl.int32,
    split: tl.int32,
    stride_row: tl.int64,
    stride_column: tl.int64,
    SIGMOID: tl.constexpr,
    POSITIVE: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    ROWS_ARE_KEYS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_N rows and `split` columns from split * pid_m on."""
    pid_n, pid_m = tl.program_id(0), tl.program_id(1)
    a, b = units(temperature_ptr, bias_ptr)
    SHIFT: tl.constexpr = SHIFT_FP16 if row_ptr.dtype.element_ty == tl.float16 else 0.0
    WEIGHT_SUM: tl.constexpr = weight_sum_ptr is not None
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    # Rows past the end are copies of the last one, which are not stored.
    offs_n = tl.minimum(pid_n * BLOCK_N + tl.arange(0, BLOCK_N), R - 1)
    rows = load_full(row_ptr, offs_n, stride_row, D, BLOCK_D)
    begin = pid_m * split
    end = tl.minimum(begin + split, C)
    diagonal = pid_n * BLOCK_N - first if ROWS_ARE_KEYS else first + pid_n * BLOCK_N
    lo, hi, full = masked_blocks(diagonal, begin, end, BLOCK_N, BLOCK_M, RULE)
    row_max, row_scale, row_factor, t = None, None, None, None
    if row_scale_ptr is not None:
        row_max = tl.load(row_max_ptr + offs_n.to(tl.int64))
        row_scale = tl.load(row_scale_ptr + offs_n.to(tl.int64))
    if reference_ptr is not None:
        t = tl.load(reference_ptr)
        row_factor = tl.load(row_factor_ptr + offs_n.to(tl.int64))
        if t != t:  # NaN: maxima too far apart for one exponential
            lo, hi = full * 0, full
    row_terms = offs_n, row_max, row_scale, row_factor
    columns = column_ptr, stride_column, column_max_ptr, column_scale_ptr, column_factor_ptr
    acc = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    weight_sum = tl.zeros([BLOCK_N], tl.float32)
    for i in range(full - (hi - lo)):
        start = plain_start(i, begin, lo, hi, BLOCK_M)
        acc, weight_sum = _add_block(
            acc, weight_sum, rows, (a, b, t), row_terms, columns, start, end, D, None, None,
            RULE, SIGMOID, SHIFT, ROWS_ARE_KEYS, WEIGHT_SUM, BLOCK_M, BLOCK_D, MASKED=False,
        )  # fmt: skip
    if ROWS_ARE_KEYS:
        row_pairs = load_labels(key_label_ptr, offs_n, offs_n < regular), None
    else:
        row_label = load_labels(query_label_ptr, offs_n, offs_n < R)
        row_positive = load_positive(positive_ptr, first + offs_n, offs_n, offs_n < R, POSITIVE)
        row_pairs = row_label, row_positive
    column_pairs = positive_ptr, query_label_ptr, key_label_ptr, regular, first
    rest = (end > begin + full * BLOCK_M).to(tl.int32)
    for i in range(hi - lo + rest):
        start = masked_start(i, begin, lo, hi, full, BLOCK_M)
        acc, weight_sum = _add_block(
            acc, weight_sum, rows, (a, b, t), row_terms, columns, start, end, D,
            row_pairs, column_pairs, RULE, SIGMOID, SHIFT, ROWS_ARE_KEYS, WEIGHT_SUM, BLOCK_M,
            BLOCK_D, MASKED=True,
        )  # fmt: skip
    factor = tl.full([BLOCK_N], 2.0**-SHIFT, tl.float32)
    if column_scale_ptr is None:
        factor *= row_scale
    offs_d = tl.arange(0, BLOCK_D)
    mask_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N) < R
    at = pid_m.to(tl.int64) * R + offs_n  # [BLOCK_N], rows of the partial results
    mask = mask_n[:, None] & (offs_d < D)[None, :]
    tl.store(out_ptr + (at[:, None] * D + offs_d[None, :]), acc * factor[:, None], mask=mask)
    if WEIGHT_SUM:
        tl.store(weight_sum_ptr + at, weight_sum * factor, mask=mask_n)


def contrast_gradient_bwd(
    features: tuple[torch.Tensor, torch.Tensor],
    pairs: Pairs,
    row_terms: WeightTerms | None,
    column_terms: WeightTerms | None,
    *,
    rows_are_keys: bool,
    shared: SharedExponent | None = None,
    weight_sum: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weighted sums of the columns, for each row.

    Args:
        features: Rows [R, D] and columns [C, D]: float16 | bfloat16 | float32, stride 1 along D,
            not empty.
        pairs: Negatives, temperature and bias.
        row_terms: Weights of the direction with the rows as queries, or None.
        column_terms: Weights of the direction with the columns as queries, or None; not both.
        rows_are_keys: The rows are the keys of the contrast, the columns its queries.
        shared: `shared_exponent` of both sides; only with both, and not for the sigmoid form.
        weight_sum: Return the sums of weights as well.

    Returns: Partial sums [parts, R, D], and [R] or None, float32.
    """
    rows, columns = features
    assert row_terms is not None or column_terms is not None
    width = block_d(rows.shape[1], rows.element_size())
    arch = arch_of(_contrast_gradient_kernel, rows)
    tile = tile_for("contrast_gradient", arch, rows.element_size(), width)
    blocks = cdiv(len(rows), tile.block_n)
    split, parts = column_ranges(blocks, len(columns), tile.block_m)
    out = rows.new_empty((parts, *rows.shape), dtype=torch.float32)
    weight_sums = rows.new_empty(parts, len(rows), dtype=torch.float32) if weight_sum else None
    shared = SharedExponent() if shared is None else shared
    with torch.cuda.device_of(rows):
        _contrast_gradient_kernel[(blocks, parts)](
            row_ptr=rows,
            column_ptr=columns,
            row_max_ptr=None if row_terms is None else row_terms.max_score,
            row_scale_ptr=None if row_terms is None else row_terms.scale,
            column_max_ptr=None if column_terms is None else column_terms.max_score,
            column_scale_ptr=None if column_terms is None else column_terms.scale,
            row_factor_ptr=shared.row_factor,
            column_factor_ptr=shared.column_factor,
            reference_ptr=shared.t,
            out_ptr=out,
            weight_sum_ptr=weight_sums,
            R=len(rows),
            C=len(columns),
            D=rows.shape[1],
            split=split,
            stride_row=rows.stride(0),
            stride_column=columns.stride(0),
            ROWS_ARE_KEYS=rows_are_keys,
            BLOCK_N=tile.block_n,
            BLOCK_M=tile.block_m,
            BLOCK_D=width,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            maxnreg=tile.registers,
            enable_fp_fusion=True,
            **pairs.arguments(len(rows) if rows_are_keys else len(columns)),
        )
    return out, None if weight_sums is None else weight_sums.sum(dim=0)


__all__ = ["contrast_gradient_bwd"]

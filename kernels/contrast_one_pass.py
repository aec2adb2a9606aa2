"""Softmax statistics and the weighted sum of the keys in one pass, as in fused attention.

    row_max_i = max_j x_ij
    exp_sum_i = sum_j 2^(x_ij - row_max_i)
    weighted_keys_i = sum_j 2^(x_ij - row_max_i) k_j

over the negatives j; positive_score_i = x of the positive, if it is a key. dL/dq follows from these
where only queries are differentiated: a direction with stopped or frozen keys costs one pass.
Sigmoid form: the weights are 1 / (1 + 2^-x), weight_sum their sum, exp_sum that of log(1 + 2^x).
x as in `contrast_common.py`.

Blocks of negatives alone are summed relative to one constant, as in `contrast_statistics.py`, and
repeated if a sum leaves its range. Other blocks, and all blocks of float16, use a running maximum
that rescales the earlier weight_sum (Milakov and Gimelshein, 2018; Dao et al., 2022).

Numerics contract: as `contrast_gradient.py`. Weights, here within 0..1, are rounded to the
features' dtype before the product: |error of weighted_keys_i| <= u * sum_j w_ij |k_j| beyond that
of float32, with u = 2^-8 (bfloat16), 2^-11 (float16), 0 (float32). exp_sum adds unrounded weights.

Deterministic: no atomics; one partial result for each range of keys, merged by the caller.
Cost: 4*N*M*D flop, 1 exponential a score; traffic as in `contrast_gradient.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import arch_of, cdiv, tile_for
from mmcl_fast.kernels.contrast_common import (
    FLOOR,
    LARGEST_SUM,
    SHIFT_FP16,
    SMALLEST_SUM,
    Pairs,
    block_d,
    load_block,
    load_full,
    load_labels,
    load_positive,
    mask_scores,
    masked_blocks,
    masked_start,
    normalised,
    plain_start,
    shift_of,
    sigmoid,
    softplus,
    units,
)
from mmcl_fast.kernels.contrast_statistics import column_ranges


class OnePass(NamedTuple):
    """P partial results, one per range of keys; float32."""

    max_score: torch.Tensor  # [P, N]
    exp_sum: torch.Tensor  # [P, N], relative to `max_score`
    positive_score: torch.Tensor  # [P, N], whose sum is the score; undefined for other positives
    weighted_keys: torch.Tensor  # [P, N, D]
    weight_sum: torch.Tensor | None  # [P, N], sigmoid form


@triton.jit
def _add_block(  # noqa: PLR0913  (inlined: no API)
    acc,
    statistics,
    q,
    scaling,
    key,
    start,
    end,
    D,
    query_pairs,
    key_pairs,
    RULE: tl.constexpr,
    SIGMOID: tl.constexpr,
    SHIFT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASKED: tl.constexpr,
):
    """(acc, *statistics) plus one block of keys. MASKED: some of its pairs may be no negatives.

    statistics: (row_max, exp_sum, positive_score, weight_sum). Without MASKED, exponentials are
    relative to t.
    """
    a, b, t = scaling
    row_max, exp_sum, positive_score, weight_sum = statistics
    key_ptr, stride_km = key
    offs_m, mask_m, k = load_block(key_ptr, start, end, stride_km, D, BLOCK_M, BLOCK_D, MASKED)
    x = tl.dot(q, tl.trans(k), input_precision="ieee")
    if MASKED:
        positive = query_pairs[2]
        key_label_ptr, regular = key_pairs
        x = x * a + b
        if RULE[1] != "none":
            positive_score += tl.sum(tl.where(offs_m[None, :] == positive, x, 0.0), 1)
        label_k = load_labels(key_label_ptr, offs_m, offs_m < regular)
        of_keys = offs_m[None, :], label_k[None, :]
        x = mask_scores(x, query_pairs, of_keys, mask_m[None, :], regular, RULE)
    elif SIGMOID:
        x = x * a + b
    if SIGMOID:
        exp_sum += tl.sum(softplus(x), 1)
        w = sigmoid(x) * (2.0**SHIFT)
        weight_sum += tl.sum(w, 1)
    elif MASKED:
        new_max = tl.maximum(row_max, tl.max(x, 1))
        rescale = tl.exp2(row_max - new_max)
        w = tl.exp2(x - (new_max - SHIFT)[:, None])
        exp_sum = exp_sum * rescale + tl.sum(w, 1)
        acc = acc * rescale[:, None]
        row_max = new_max
    else:
        w = tl.exp2(x * a + (b - t))
        exp_sum += tl.sum(w, 1)
    acc = tl.dot(w.to(q.dtype), k, acc, input_precision="ieee")
    return acc, row_max, exp_sum, positive_score, weight_sum


@triton.jit(do_not_specialize=["N", "M", "regular", "first", "split"])
def _contrast_one_pass_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    query_ptr,
    key_ptr,
    temperature_ptr,
    bias_ptr,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    max_ptr,
    exp_sum_ptr,
    positive_score_ptr,
    weighted_keys_ptr,
    weight_sum_ptr,
    N: tl.int32,
    M: tl.int32,
    D: tl.int32,
    regular: tl.int32,
    first: tl.int32,
    split: tl.int32,
    stride_qn: tl.int64,
    stride_km: tl.int64,
    SIGMOID: tl.constexpr,
    POSITIVE: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_N queries and `split` keys from split * pid_m on."""
    pid_n, pid_m = tl.program_id(0), tl.program_id(1)
    a, b = units(temperature_ptr, bias_ptr)
    ELEMENT: tl.constexpr = query_ptr.dtype.element_ty
    SHIFT: tl.constexpr = SHIFT_FP16 if query_ptr.dtype.element_ty == tl.float16 else 0.0
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    # float16 has few exponents: its weights must be relative to the maximum of their row.
    COMMON_REFERENCE: tl.constexpr = not (SIGMOID or tl.float16 == ELEMENT)
    # Rows past the end are copies of the last one, which are not stored.
    offs_n = tl.minimum(pid_n * BLOCK_N + tl.arange(0, BLOCK_N), N - 1)
    q = load_full(query_ptr, offs_n, stride_qn, D, BLOCK_D)
    begin = pid_m * split
    end = tl.minimum(begin + split, M)
    diagonal = first + pid_n * BLOCK_N
    lo, hi, full = masked_blocks(diagonal, begin, end, BLOCK_N, BLOCK_M, RULE)
    if not (SIGMOID or COMMON_REFERENCE):
        lo, hi = full * 0, full
    t = shift_of(a)
    row_max = tl.full([BLOCK_N], FLOOR, tl.float32)
    exp_sum = tl.zeros([BLOCK_N], tl.float32)
    positive_score = tl.zeros([BLOCK_N], tl.float32)
    weight_sum = tl.zeros([BLOCK_N], tl.float32)
    acc = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    if SIGMOID or COMMON_REFERENCE:
        for i in range(full - (hi - lo)):
            start = plain_start(i, begin, lo, hi, BLOCK_M)
            acc, row_max, exp_sum, positive_score, weight_sum = _add_block(
                acc, (row_max, exp_sum, positive_score, weight_sum), q, (a, b, t),
                (key_ptr, stride_km), start, end, D, None, None,
                RULE, SIGMOID, SHIFT, BLOCK_M, BLOCK_D, MASKED=False,
            )  # fmt: skip
    if COMMON_REFERENCE:  # noqa: SIM102  (a constant of the binary)
        if full > hi - lo:
            in_range = (tl.min(exp_sum, 0) >= SMALLEST_SUM) & (tl.max(exp_sum, 0) <= LARGEST_SUM)
            row_max, normalised_sum = normalised(exp_sum, t)
            rescale = tl.div_rn(normalised_sum, exp_sum)  # a power of two
            row_max = tl.where(in_range, row_max, FLOOR)
            exp_sum = tl.where(in_range, normalised_sum, 0.0)
            acc = tl.where(in_range, acc * rescale[:, None], 0.0)
            if not in_range:  # repeat all blocks relative to the maximum of each row
                lo, hi = full * 0, full
    offs_q = first + offs_n
    label_q = load_labels(query_label_ptr, offs_n, offs_n < N)
    positive = load_positive(positive_ptr, offs_q, offs_n, offs_n < N, POSITIVE)
    query_pairs = offs_q[:, None], label_q[:, None], positive[:, None]
    rest = (end > begin + full * BLOCK_M).to(tl.int32)
    for i in range(hi - lo + rest):
        start = masked_start(i, begin, lo, hi, full, BLOCK_M)
        acc, row_max, exp_sum, positive_score, weight_sum = _add_block(
            acc, (row_max, exp_sum, positive_score, weight_sum), q, (a, b, t),
            (key_ptr, stride_km), start, end, D, query_pairs, (key_label_ptr, regular),
            RULE, SIGMOID, SHIFT, BLOCK_M, BLOCK_D, MASKED=True,
        )  # fmt: skip
    mask_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N) < N
    offs_d = tl.arange(0, BLOCK_D)
    at = pid_m.to(tl.int64) * N + offs_n  # [BLOCK_N], rows of the partial results
    mask = mask_n[:, None] & (offs_d < D)[None, :]
    acc *= 2.0**-SHIFT
    tl.store(weighted_keys_ptr + (at[:, None] * D + offs_d[None, :]), acc, mask=mask)
    tl.store(max_ptr + at, row_max, mask=mask_n)
    if SIGMOID:
        tl.store(weight_sum_ptr + at, weight_sum * (2.0**-SHIFT), mask=mask_n)
    else:
        exp_sum *= 2.0**-SHIFT
    tl.store(exp_sum_ptr + at, exp_sum, mask=mask_n)
    if POSITIVE != "none":
        tl.store(positive_score_ptr + at, positive_score, mask=mask_n)


def contrast_one_pass_fwd(query: torch.Tensor, key: torch.Tensor, pairs: Pairs) -> OnePass:
    """Statistics and weighted keys of each query.

    Args:
        query: [N, D], float16 | bfloat16 | float32, stride 1 along D, N > 0.
        key: [M, D], same dtype, stride 1 along D, M > 0.
        pairs: Negatives, temperature and bias.

    Raises: ValueError (a GPU without tiles, CPU tensors outside of the interpreter).
    """
    n, m, d = len(query), len(key), query.shape[1]
    width = block_d(d, query.element_size())
    arch = arch_of(_contrast_one_pass_kernel, query)
    tile = tile_for("contrast_one_pass", arch, query.element_size(), width)
    blocks = cdiv(n, tile.block_n)
    split, parts = column_ranges(blocks, m, tile.block_m)
    row_max, exp_sum, positive_score = (
        query.new_empty(parts, n, dtype=torch.float32) for _ in range(3)
    )
    weighted_keys = query.new_empty(parts, n, d, dtype=torch.float32)
    weight_sum = torch.empty_like(row_max) if pairs.sigmoid else None
    with torch.cuda.device_of(query):
        _contrast_one_pass_kernel[(blocks, parts)](
            query_ptr=query,
            key_ptr=key,
            max_ptr=row_max,
            exp_sum_ptr=exp_sum,
            positive_score_ptr=positive_score,
            weighted_keys_ptr=weighted_keys,
            weight_sum_ptr=weight_sum,
            N=n,
            M=m,
            D=d,
            split=split,
            stride_qn=query.stride(0),
            stride_km=key.stride(0),
            BLOCK_N=tile.block_n,
            BLOCK_M=tile.block_m,
            BLOCK_D=width,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            maxnreg=tile.registers,
            enable_fp_fusion=True,
            **pairs.arguments(m),
        )
    return OnePass(row_max, exp_sum, positive_score, weighted_keys, weight_sum)


__all__ = ["OnePass", "contrast_one_pass_fwd"]

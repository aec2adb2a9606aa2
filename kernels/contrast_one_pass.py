"""Loss statistics and the gradient's mixture of features in one pass, as in softmax attention.

    top_i = max_j x_ij    total_i = sum_j 2^(x_ij - top_i)    mixture_i = sum_j 2^(x_ij - top_i) k_j

over negatives j, and found_i = x of the positive, if that is a key. With them dL/dq is known, when
queries alone are differentiated: a direction whose keys are stopped or frozen costs one pass.
Sigmoid form: mixture and `sums` of 1 / (1 + 2^-x), `total` of log(1 + 2^x). x as in
`contrast_common.py`.

Blocks that are all negatives are summed relative to one number, as in `contrast_statistics.py`, and
again if a sum leaves its range. Others, and all in float16, have a running maximum that rescales
what was summed before (Milakov and Gimelshein, 2018; Dao et al., 2022).

Numerics contract: as `contrast_gradient.py`: weights, here within 0..1, are rounded to the
features' dtype before the product: |error of mixture_i| <= u * sum_j w_ij |k_j| beyond float32's,
with u = 2^-8 (bfloat16), 2^-11 (float16), 0 (float32). `total` sums the unrounded weights.

Deterministic: no atomics; partial results by ranges of keys, to be merged by the caller.
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
    settled,
    shift_of,
    sigmoid,
    softplus,
    units,
)
from mmcl_fast.kernels.contrast_statistics import column_ranges


class Mixture(NamedTuple):
    """Partial results, one per range of keys; float32."""

    top: torch.Tensor  # [P, N]
    total: torch.Tensor  # [P, N]
    found: torch.Tensor  # [P, N], to be added up; undefined where the positive is no key
    mixture: torch.Tensor  # [P, N, D]
    sums: torch.Tensor | None  # [P, N], sigmoid form


@triton.jit
def _add_block(  # noqa: PLR0913  (inlined: no API)
    acc,
    statistics,
    q,
    units,
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
    """(acc, *statistics) with one more block of keys; MASKED: not all its pairs are negatives.

    statistics: (top, total, found, sums). Without MASKED, totals and weights are relative to t.
    """
    a, b, t = units
    top, total, found, sums = statistics
    key_ptr, stride_km = key
    offs_m, mask_m, k = load_block(key_ptr, start, end, stride_km, D, BLOCK_M, BLOCK_D, MASKED)
    x = tl.dot(q, tl.trans(k), input_precision="ieee")
    if MASKED:
        positive = query_pairs[2]
        key_label_ptr, regular = key_pairs
        x = x * a + b
        if RULE[1] != "none":
            found += tl.sum(tl.where(offs_m[None, :] == positive, x, 0.0), 1)
        label_k = load_labels(key_label_ptr, offs_m, offs_m < regular)
        of_keys = offs_m[None, :], label_k[None, :]
        x = mask_scores(x, query_pairs, of_keys, mask_m[None, :], regular, RULE)
    elif SIGMOID:
        x = x * a + b
    if SIGMOID:
        total += tl.sum(softplus(x), 1)
        w = sigmoid(x) * (2.0**SHIFT)
        sums += tl.sum(w, 1)
    elif MASKED:
        raised = tl.maximum(top, tl.max(x, 1))
        shrink = tl.exp2(top - raised)
        w = tl.exp2(x - (raised - SHIFT)[:, None])
        total = total * shrink + tl.sum(w, 1)
        acc = acc * shrink[:, None]
        top = raised
    else:
        w = tl.exp2(x * a + (b - t))
        total += tl.sum(w, 1)
    acc = tl.dot(w.to(q.dtype), k, acc, input_precision="ieee")
    return acc, top, total, found, sums


@triton.jit(do_not_specialize=["N", "M", "regular", "first", "split"])
def _contrast_one_pass_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    query_ptr,
    key_ptr,
    temperature_ptr,
    bias_ptr,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    top_ptr,
    total_ptr,
    found_ptr,
    mixture_ptr,
    sums_ptr,
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
    """One program: BLOCK_N queries against keys split * pid_m and following."""
    pid_n, pid_m = tl.program_id(0), tl.program_id(1)
    a, b = units(temperature_ptr, bias_ptr)
    ELEMENT: tl.constexpr = query_ptr.dtype.element_ty
    SHIFT: tl.constexpr = SHIFT_FP16 if query_ptr.dtype.element_ty == tl.float16 else 0.0
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    # With 16 bits of which few are exponent, weights must be relative to the rows' own maxima.
    SHARED: tl.constexpr = not (SIGMOID or tl.float16 == ELEMENT)
    # Rows past the end are copies of the last one, which are not stored.
    offs_n = tl.minimum(pid_n * BLOCK_N + tl.arange(0, BLOCK_N), N - 1)
    q = load_full(query_ptr, offs_n, stride_qn, D, BLOCK_D)
    begin = pid_m * split
    end = tl.minimum(begin + split, M)
    diagonal = first + pid_n * BLOCK_N
    lo, hi, full = masked_blocks(diagonal, begin, end, BLOCK_N, BLOCK_M, RULE)
    if not (SIGMOID or SHARED):
        lo, hi = full * 0, full
    t = shift_of(a)
    top = tl.full([BLOCK_N], FLOOR, tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    found = tl.zeros([BLOCK_N], tl.float32)
    sums = tl.zeros([BLOCK_N], tl.float32)
    acc = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    if SIGMOID or SHARED:
        for i in range(full - (hi - lo)):
            start = tl.multiple_of(begin + tl.where(i < lo, i, i + (hi - lo)) * BLOCK_M, BLOCK_M)
            acc, top, total, found, sums = _add_block(
                acc, (top, total, found, sums), q, (a, b, t), (key_ptr, stride_km), start, end, D,
                None, None, RULE, SIGMOID, SHIFT, BLOCK_M, BLOCK_D, MASKED=False,
            )  # fmt: skip
    if SHARED:  # noqa: SIM102  (a constant of the binary)
        if full > hi - lo:
            kept = (tl.min(total, 0) >= SMALLEST_SUM) & (tl.max(total, 0) <= LARGEST_SUM)
            top, settled_total = settled(total, t)
            shrink = tl.div_rn(settled_total, total)  # a power of two
            top = tl.where(kept, top, FLOOR)
            total = tl.where(kept, settled_total, 0.0)
            acc = tl.where(kept, acc * shrink[:, None], 0.0)
            if not kept:  # once more, relative to the rows' own maxima
                lo, hi = full * 0, full
    offs_q = first + offs_n
    label_q = load_labels(query_label_ptr, offs_n, offs_n < N)
    positive = load_positive(positive_ptr, offs_q, offs_n, offs_n < N, POSITIVE)
    query_pairs = offs_q[:, None], label_q[:, None], positive[:, None]
    rest = (end > begin + full * BLOCK_M).to(tl.int32)
    for i in range(hi - lo + rest):
        start = tl.multiple_of(begin + tl.where(i < hi - lo, lo + i, full) * BLOCK_M, BLOCK_M)
        acc, top, total, found, sums = _add_block(
            acc, (top, total, found, sums), q, (a, b, t), (key_ptr, stride_km), start, end, D,
            query_pairs, (key_label_ptr, regular), RULE, SIGMOID, SHIFT, BLOCK_M, BLOCK_D,
            MASKED=True,
        )  # fmt: skip
    mask_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N) < N
    offs_d = tl.arange(0, BLOCK_D)
    at = pid_m.to(tl.int64) * N + offs_n  # [BLOCK_N], rows of the partial results
    mask = mask_n[:, None] & (offs_d < D)[None, :]
    acc *= 2.0**-SHIFT
    tl.store(mixture_ptr + (at[:, None] * D + offs_d[None, :]), acc, mask=mask)
    tl.store(top_ptr + at, top, mask=mask_n)
    if SIGMOID:
        tl.store(sums_ptr + at, sums * (2.0**-SHIFT), mask=mask_n)
    else:
        total *= 2.0**-SHIFT
    tl.store(total_ptr + at, total, mask=mask_n)
    if POSITIVE != "none":
        tl.store(found_ptr + at, found, mask=mask_n)


def contrast_one_pass_fwd(query: torch.Tensor, key: torch.Tensor, pairs: Pairs) -> Mixture:
    """Statistics and mixtures of each query.

    Args:
        query: [N, D], float16 | bfloat16 | float32, stride 1 along D, N > 0.
        key: [M, D], the same; M > 0.
        pairs: Negatives and units.

    Raises: ValueError (no GPU that the tiles know, CPU tensors outside the interpreter).
    """
    n, m, d = len(query), len(key), query.shape[1]
    width = block_d(d, query.element_size())
    arch = arch_of(_contrast_one_pass_kernel, query)
    tile = tile_for("contrast_one_pass", arch, query.element_size(), width)
    blocks = cdiv(n, tile.block_n)
    split, parts = column_ranges(blocks, m, tile.block_m)
    top, total, found = (query.new_empty(parts, n, dtype=torch.float32) for _ in range(3))
    mixture = query.new_empty(parts, n, d, dtype=torch.float32)
    sums = torch.empty_like(top) if pairs.sigmoid else None
    with torch.cuda.device_of(query):
        _contrast_one_pass_kernel[(blocks, parts)](
            query_ptr=query,
            key_ptr=key,
            top_ptr=top,
            total_ptr=total,
            found_ptr=found,
            mixture_ptr=mixture,
            sums_ptr=sums,
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
    return Mixture(top, total, found, mixture, sums)


__all__ = ["Mixture", "contrast_one_pass_fwd"]

"""Weighted sums of features, with weights made from statistics; one program owns its rows.

    out_o = sum_p w_op other_p     sums_o = sum_p w_op     over the pairs (o, p) that are negative
    w_op = shift * ( 2^(x_op - own_top_o) own_scale_o  +  2^(x_op - other_top_p) other_scale_p )

`own` and `other` are query and key, or key and query: dQ and dK are the same kernel. A side without
scale has no term. Sigmoid form: both exponentials are 1 / (1 + 2^-x). x as in `contrast_common.py`.

Numerics contract: scores and sums float32. The weights w are rounded to the features' dtype before
they meet them, so that 16-bit features use tensor cores: with u = 2^-8 (bfloat16), 2^-11 (float16),
0 (float32: "ieee" products), |error of out_o| <= u * sum_p |w_op other_p| beyond float32's. A row
with own terms alone is weighted by `own_scale` in float32 afterwards. float16 has few exponents:
weights are times 2^14 on the way (`shift`, taken out again); those below 2^-28 then have an error
of 2^-39 instead. Callers keep scales within -1..1.

Where both sides count, w = 2^(x - t) (f_o + f_p) with f = scale * 2^(t - top) and t amid all tops:
one exponential a score, as long as they lie within 2^100 of each other. x is at most 1 above either
top, so 2^(x - t) <= 2^51, also where both scales are 0. Weights below 2^-76 of the largest may then
be lost. Farther apart, each side has its own.

Deterministic: no atomics, sums in the order of `other`; where few rows would leave the GPU idle,
the others are cut into ranges with partial sums of their own, by sizes alone.

Cost: 4*N*M*D flop, 1 exponential a score (2 with masks or far tops); reads (rows / block_n) times
`other`, mostly from L2; writes 4 bytes an element of `out`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import arch_of, cdiv, tile_for
from mmcl_fast.kernels.contrast_common import (
    SHIFT_FP16,
    Pairs,
    block_d,
    load_block,
    load_full,
    load_labels,
    load_positive,
    mask_scores,
    masked_blocks,
    sigmoid,
    units,
)
from mmcl_fast.kernels.contrast_statistics import column_ranges


class Side(NamedTuple):
    """What a direction's queries bring to the weights; float32, one entry for each of them."""

    top: torch.Tensor
    scale: torch.Tensor  # within -1..1


@triton.jit
def _terms(x, top, SIGMOID: tl.constexpr):
    return sigmoid(x) if SIGMOID else tl.exp2(x - top)


_BLOCK = 8192  # rows that a program of `_contrast_factors_kernel` looks at together
SPREAD = tl.constexpr(100.0)  # of tops that share an exponential: weights below 2^-76 may be lost


@triton.jit
def _span(top_ptr, low, high, N, BLOCK: tl.constexpr):
    """Least and largest top, also of rows whose scale is 0: theirs bound the scores they share."""
    for start in range(0, N, BLOCK):
        offs = (start + tl.arange(0, BLOCK)).to(tl.int64)
        top = tl.load(top_ptr + offs, mask=offs < N, other=tl.load(top_ptr))
        low, high = tl.minimum(low, top), tl.maximum(high, top)
    return low, high


@triton.jit(do_not_specialize=["OWN", "OTHER"])
def _contrast_factors_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    own_top_ptr,
    own_scale_ptr,
    other_top_ptr,
    other_scale_ptr,
    own_factor_ptr,
    other_factor_ptr,
    shared_ptr,
    OWN: tl.int32,
    OTHER: tl.int32,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: t, NaN if there is none, and scale * 2^(t - top) of a block of both sides."""
    low = tl.full([BLOCK], 2.0**120, tl.float32)
    low, high = _span(own_top_ptr, low, -low, OWN, BLOCK)
    low, high = _span(other_top_ptr, low, high, OTHER, BLOCK)
    least, most = tl.min(low, 0), tl.max(high, 0)
    t = 0.5 * (least + most)
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    top = tl.load(own_top_ptr + offs, mask=offs < OWN, other=0.0)
    scale = tl.load(own_scale_ptr + offs, mask=offs < OWN, other=0.0)
    power = tl.exp2(tl.minimum(tl.maximum(t - top, -SPREAD), SPREAD) + SHIFT)
    tl.store(own_factor_ptr + offs, scale * power, mask=offs < OWN)
    top = tl.load(other_top_ptr + offs, mask=offs < OTHER, other=0.0)
    scale = tl.load(other_scale_ptr + offs, mask=offs < OTHER, other=0.0)
    power = tl.exp2(tl.minimum(tl.maximum(t - top, -SPREAD), SPREAD) + SHIFT)
    tl.store(other_factor_ptr + offs, scale * power, mask=offs < OTHER)
    if tl.program_id(0) == 0:
        tl.store(shared_ptr, tl.where(most - least <= SPREAD, t, float("nan")))


@triton.jit
def _masked_scores(  # noqa: PLR0913  (inlined: no API)
    x, offs_n, offs_m, mask_m, row_pairs, column_pairs, RULE: tl.constexpr, OWN_KEYS: tl.constexpr
):
    """Scores of a block of own rows and others, -inf where they are no negatives."""
    label_own, positive_own = row_pairs
    positive_ptr, query_label_ptr, key_label_ptr, regular, first = column_pairs
    if OWN_KEYS:
        offs_q = first + offs_m
        positive = load_positive(positive_ptr, offs_q, offs_m, mask_m, RULE[1])
        label_q = load_labels(query_label_ptr, offs_m, mask_m)
        query = offs_q[None, :], label_q[None, :], positive[None, :]
        key = offs_n[:, None], label_own[:, None]
    else:
        query = (first + offs_n)[:, None], label_own[:, None], positive_own[:, None]
        label_k = load_labels(key_label_ptr, offs_m, offs_m < regular)
        key = offs_m[None, :], label_k[None, :]
    return mask_scores(x, query, key, mask_m[None, :], regular, RULE)


@triton.jit
def _add_block(  # noqa: PLR0913  (inlined: no API)
    acc,
    sums,
    own,
    units,
    own_terms,
    other,
    start,
    end,
    D,
    row_pairs,
    column_pairs,
    RULE: tl.constexpr,
    SIGMOID: tl.constexpr,
    SHIFT: tl.constexpr,
    OWN_KEYS: tl.constexpr,
    SUMS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASKED: tl.constexpr,
):
    """(acc, sums) with one more block of others; MASKED: not all its pairs are negatives.

    own_terms: (offsets, top, scale, factor) of the own rows, None those that the weights lack.
    other: (features, stride, tops, scales, factors) of the others.
    """
    a, b, t = units
    offs_n, own_top, own_scale, own_factor = own_terms
    other_ptr, stride_other, other_top_ptr, other_scale_ptr, other_factor_ptr = other
    offs_m, mask_m, features = load_block(
        other_ptr, start, end, stride_other, D, BLOCK_M, BLOCK_D, MASKED
    )
    at = offs_m.to(tl.int64)
    x = tl.dot(own, tl.trans(features), input_precision="ieee")
    if MASKED:
        x = _masked_scores(
            x * a + b, offs_n, offs_m, mask_m, row_pairs, column_pairs, RULE, OWN_KEYS
        )
        if other_scale_ptr is None:
            w = sigmoid(x) * 2.0**SHIFT if SIGMOID else tl.exp2(x - (own_top - SHIFT)[:, None])
        else:
            other_top = tl.load(other_top_ptr + at, mask=mask_m, other=0.0)
            other_scale = tl.load(other_scale_ptr + at, mask=mask_m, other=0.0)
            w = _terms(x, other_top[None, :], SIGMOID) * other_scale[None, :]
            if own_scale is not None:
                w += _terms(x, own_top[:, None], SIGMOID) * own_scale[:, None]
            w *= 2.0**SHIFT
    elif SIGMOID:
        w = sigmoid(x * a + b) * (2.0**SHIFT)
        if other_scale_ptr is not None:
            scale = tl.load(other_scale_ptr + at)[None, :]
            w *= scale if own_scale is None else own_scale[:, None] + scale
    elif own_factor is not None:
        other_factor = tl.load(other_factor_ptr + at)
        w = tl.exp2(x * a + (b - t)) * (own_factor[:, None] + other_factor[None, :])
    elif other_scale_ptr is None:
        w = tl.exp2(x * a + (b + SHIFT - own_top)[:, None])
    else:
        other_top, other_scale = tl.load(other_top_ptr + at), tl.load(other_scale_ptr + at)
        w = tl.exp2(x * a + (b + SHIFT - other_top)[None, :]) * other_scale[None, :]
    if SUMS:
        sums += tl.sum(w, 1)
    acc = tl.dot(w.to(own.dtype), features, acc, input_precision="ieee")
    return acc, sums


@triton.jit(do_not_specialize=["OWN", "OTHER", "regular", "first", "split"])
def _contrast_gradient_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    own_ptr,
    other_ptr,
    temperature_ptr,
    bias_ptr,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    own_top_ptr,
    own_scale_ptr,
    other_top_ptr,
    other_scale_ptr,
    own_factor_ptr,
    other_factor_ptr,
    shared_ptr,
    out_ptr,
    sums_ptr,
    OWN: tl.int32,
    OTHER: tl.int32,
    D: tl.int32,
    regular: tl.int32,
    first: tl.int32,
    split: tl.int32,
    stride_own: tl.int64,
    stride_other: tl.int64,
    SIGMOID: tl.constexpr,
    POSITIVE: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    OWN_KEYS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_N rows of `own` against rows split * pid_m and following of `other`."""
    pid_n, pid_m = tl.program_id(0), tl.program_id(1)
    a, b = units(temperature_ptr, bias_ptr)
    SHIFT: tl.constexpr = SHIFT_FP16 if own_ptr.dtype.element_ty == tl.float16 else 0.0
    SUMS: tl.constexpr = sums_ptr is not None
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    # Rows past the end are copies of the last one, which are not stored.
    offs_n = tl.minimum(pid_n * BLOCK_N + tl.arange(0, BLOCK_N), OWN - 1)
    own = load_full(own_ptr, offs_n, stride_own, D, BLOCK_D)
    begin = pid_m * split
    end = tl.minimum(begin + split, OTHER)
    diagonal = pid_n * BLOCK_N - first if OWN_KEYS else first + pid_n * BLOCK_N
    lo, hi, full = masked_blocks(diagonal, begin, end, BLOCK_N, BLOCK_M, RULE)
    own_top, own_scale, own_factor, t = None, None, None, None
    if own_scale_ptr is not None:
        own_top = tl.load(own_top_ptr + offs_n.to(tl.int64))
        own_scale = tl.load(own_scale_ptr + offs_n.to(tl.int64))
    if shared_ptr is not None:
        t = tl.load(shared_ptr)
        own_factor = tl.load(own_factor_ptr + offs_n.to(tl.int64))
        if t != t:  # NaN: tops too far apart for one exponential
            lo, hi = full * 0, full
    own_terms = offs_n, own_top, own_scale, own_factor
    other = other_ptr, stride_other, other_top_ptr, other_scale_ptr, other_factor_ptr
    acc = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    sums = tl.zeros([BLOCK_N], tl.float32)
    for i in range(full - (hi - lo)):
        start = tl.multiple_of(begin + tl.where(i < lo, i, i + (hi - lo)) * BLOCK_M, BLOCK_M)
        acc, sums = _add_block(
            acc, sums, own, (a, b, t), own_terms, other, start, end, D, None, None,
            RULE, SIGMOID, SHIFT, OWN_KEYS, SUMS, BLOCK_M, BLOCK_D, MASKED=False,
        )  # fmt: skip
    if OWN_KEYS:
        row_pairs = load_labels(key_label_ptr, offs_n, offs_n < regular), None
    else:
        label_own = load_labels(query_label_ptr, offs_n, offs_n < OWN)
        positive_own = load_positive(positive_ptr, first + offs_n, offs_n, offs_n < OWN, POSITIVE)
        row_pairs = label_own, positive_own
    column_pairs = positive_ptr, query_label_ptr, key_label_ptr, regular, first
    rest = (end > begin + full * BLOCK_M).to(tl.int32)
    for i in range(hi - lo + rest):
        start = tl.multiple_of(begin + tl.where(i < hi - lo, lo + i, full) * BLOCK_M, BLOCK_M)
        acc, sums = _add_block(
            acc, sums, own, (a, b, t), own_terms, other, start, end, D, row_pairs, column_pairs,
            RULE, SIGMOID, SHIFT, OWN_KEYS, SUMS, BLOCK_M, BLOCK_D, MASKED=True,
        )  # fmt: skip
    factor = tl.full([BLOCK_N], 2.0**-SHIFT, tl.float32)
    if other_scale_ptr is None:
        factor *= own_scale
    offs_d = tl.arange(0, BLOCK_D)
    mask_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N) < OWN
    at = pid_m.to(tl.int64) * OWN + offs_n  # [BLOCK_N], rows of the partial results
    mask = mask_n[:, None] & (offs_d < D)[None, :]
    tl.store(out_ptr + (at[:, None] * D + offs_d[None, :]), acc * factor[:, None], mask=mask)
    if SUMS:
        tl.store(sums_ptr + at, sums * factor, mask=mask_n)


def contrast_gradient_bwd(
    features: tuple[torch.Tensor, torch.Tensor],
    pairs: Pairs,
    own: Side | None,
    other: Side | None,
    *,
    own_keys: bool,
    shared: Shared | None = None,
    sums: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weighted sums of the other rows, for each own row.

    Args:
        features: own [R, D] and other [P, D]: float16 | bfloat16 | float32, stride 1 along D, not
            empty.
        pairs: Negatives and units.
        own: Statistics of the direction whose queries the own rows are, if it counts.
        other: Those of the other rows' direction; not both None.
        own_keys: Own rows are the contrast's keys, not its queries.
        shared: `shared_factors` of both sides; only where both count, and not for the sigmoid form.
        sums: Also the sums of weights.

    Returns: Partial sums [parts, R, D], and [R] or None, float32.
    """
    mine, others = features
    assert own is not None or other is not None
    width = block_d(mine.shape[1], mine.element_size())
    arch = arch_of(_contrast_gradient_kernel, mine)
    tile = tile_for("contrast_gradient", arch, mine.element_size(), width)
    blocks = cdiv(len(mine), tile.block_n)
    split, parts = column_ranges(blocks, len(others), tile.block_m)
    out = mine.new_empty((parts, *mine.shape), dtype=torch.float32)
    totals = mine.new_empty(parts, len(mine), dtype=torch.float32) if sums else None
    shared = Shared() if shared is None else shared
    with torch.cuda.device_of(mine):
        _contrast_gradient_kernel[(blocks, parts)](
            own_ptr=mine,
            other_ptr=others,
            own_top_ptr=None if own is None else own.top,
            own_scale_ptr=None if own is None else own.scale,
            other_top_ptr=None if other is None else other.top,
            other_scale_ptr=None if other is None else other.scale,
            own_factor_ptr=shared.own,
            other_factor_ptr=shared.other,
            shared_ptr=shared.t,
            out_ptr=out,
            sums_ptr=totals,
            OWN=len(mine),
            OTHER=len(others),
            D=mine.shape[1],
            split=split,
            stride_own=mine.stride(0),
            stride_other=others.stride(0),
            OWN_KEYS=own_keys,
            BLOCK_N=tile.block_n,
            BLOCK_M=tile.block_m,
            BLOCK_D=width,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            maxnreg=tile.registers,
            enable_fp_fusion=True,
            **pairs.arguments(len(mine) if own_keys else len(others)),
        )
    return out, None if totals is None else totals.sum(dim=0)


class Shared(NamedTuple):
    """What one exponential for both sides takes; see the module."""

    t: torch.Tensor | None = None
    own: torch.Tensor | None = None
    other: torch.Tensor | None = None

    @property
    def turned(self) -> Shared:
        """The same where own and other rows change places."""
        return Shared(self.t, self.other, self.own)


def shared_factors(own: Side, other: Side, dtype: torch.dtype) -> Shared:
    """For weights that both sides count in, of features of a dtype."""
    t, first, second = (own.top.new_empty(s) for s in ((1,), own.top.shape, other.top.shape))
    with torch.cuda.device_of(t):
        _contrast_factors_kernel[(cdiv(max(len(first), len(second)), _BLOCK),)](
            own_top_ptr=own.top,
            own_scale_ptr=own.scale,
            other_top_ptr=other.top,
            other_scale_ptr=other.scale,
            own_factor_ptr=first,
            other_factor_ptr=second,
            shared_ptr=t,
            OWN=len(first),
            OTHER=len(second),
            SHIFT=SHIFT_FP16.value if dtype == torch.float16 else 0.0,
            BLOCK=_BLOCK,
            num_warps=16,
            enable_fp_fusion=True,
        )
    return Shared(t, first, second)


__all__ = ["Shared", "Side", "contrast_gradient_bwd", "shared_factors"]

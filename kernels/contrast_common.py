"""Common parts of the contrastive kernels: scores, masks of negatives, sums of exponentials.

    x_ij = (<q_i, k_j> / temperature + bias) * log2(e)        query [N, D], key [M, D]

Numerics contract: scores are float32 whatever the inputs are. A product of 16-bit inputs is exact
and summed in float32 on tensor cores; one of float32 inputs is IEEE float32 ("ieee"), never TF32.
`exp2` is the hardware's approximation, relative error 2^-22 (PTX ISA, ex2.approx.f32). log(1 + y)
is a polynomial of relative error 1.3e-7, so that the small terms of the sigmoid loss keep theirs.
A masked score is -inf, every maximum at least `FLOOR`, which is finite: no inf - inf.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

LOG2 = math.log(2.0)
FLOOR = tl.constexpr(-(2.0**126))  # below any score; twice it is finite
# A sum of 2^(x - t) within these limits lost no significant term and did not overflow.
SMALLEST_SUM = tl.constexpr(2.0**-80)
LARGEST_SUM = tl.constexpr(2.0**110)
SHIFT_FP16 = tl.constexpr(14.0)  # float16 weights are times 2^14: steps of 2^-38, not 2^-24
_LOG2E = tl.constexpr(1.0 / LOG2)
_LN2 = tl.constexpr(LOG2)
# log(1 + y) / y on [0, 1], lowest degree first: Chebyshev interpolation, rounded to float32.
_LOG1P = tl.constexpr(
    (
        1.0,
        float.fromhex("-0x1.ffffb8p-2"),
        float.fromhex("0x1.554bd6p-2"),
        float.fromhex("-0x1.ff0254p-3"),
        float.fromhex("0x1.92b430p-3"),
        float.fromhex("-0x1.38b908p-3"),
        float.fromhex("0x1.afdde8p-4"),
        float.fromhex("-0x1.cdd008p-5"),
        float.fromhex("0x1.402f4cp-6"),
        float.fromhex("-0x1.a04acap-9"),
    )
)


@triton.jit
def units(temperature_ptr, bias_ptr):
    """(a, b) with x = a * <q, k> + b."""
    a = _LOG2E / tl.load(temperature_ptr)
    b = 0.0
    if bias_ptr is not None:
        b = tl.load(bias_ptr) * _LOG2E
    return a, b


@triton.jit
def load_rows(ptr, offs, mask, stride, D, BLOCK_D: tl.constexpr):
    """Rows `offs` of a matrix, [len(offs), BLOCK_D], 0 outside."""
    offs_d = tl.arange(0, BLOCK_D)
    at = offs.to(tl.int64)[:, None] * stride + offs_d[None, :]
    return tl.load(ptr + at, mask=mask[:, None] & (offs_d[None, :] < D), other=0.0)


@triton.jit
def load_full(ptr, offs, stride, D, BLOCK_D: tl.constexpr):
    """Rows `offs` of a matrix, all within it, [len(offs), BLOCK_D]."""
    offs_d = tl.arange(0, BLOCK_D)
    at = offs.to(tl.int64)[:, None] * stride + offs_d[None, :]
    return tl.load(ptr + at, mask=(offs_d < D)[None, :], other=0.0)


@triton.jit
def load_block(  # noqa: PLR0913  (inlined: no API)
    ptr, start, end, stride, D, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr
):
    """(offsets, mask, rows) of BLOCK rows of a matrix from `start` on.

    MASKED: rows from `end` on are 0. Otherwise all rows are below `end`, and loads need no mask.
    """
    offs = start + tl.arange(0, BLOCK)
    mask = offs < end
    if MASKED:
        rows = load_rows(ptr, offs, mask, stride, D, BLOCK_D)
    else:
        rows = load_full(ptr, offs, stride, D, BLOCK_D)
    return offs, mask, rows


@triton.jit
def load_labels(ptr, offs, mask):
    """Labels of rows `offs`; 0 without labels."""
    labels = offs * 0
    if ptr is not None:
        labels = tl.load(ptr + offs.to(tl.int64), mask=mask, other=0)
    return labels


@triton.jit
def load_positive(ptr, offs_q, offs_n, mask, POSITIVE: tl.constexpr):
    """Index of the key that is the positive of each query; -1: no key."""
    positive = offs_q * 0 - 1
    if POSITIVE == "index":
        positive = tl.load(ptr + offs_n.to(tl.int64), mask=mask, other=-1).to(tl.int32)
    elif POSITIVE == "diagonal":
        positive = offs_q
    return positive


@triton.jit
def is_plain(q_first, k_first, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, RULE: tl.constexpr):
    """Whether every pair of a block is a negative, by the block's position alone.

    RULE: (LABELS, POSITIVE, EXCLUDE_SELF) of the contrast; so below.
    """
    if RULE[0] or RULE[1] == "index":
        plain = False
    elif RULE[2] or RULE[1] == "diagonal":
        plain = (q_first + BLOCK_Q <= k_first) | (k_first + BLOCK_K <= q_first)
    else:
        plain = True
    return plain


@triton.jit
def shift_of(a):
    """The constant t for sums of 2^(x - t), by the temperature alone, for rows of norm 1.

    Their scores are within -a..a. For temperatures from 0.014 on, t = 0 suffices.
    """
    return tl.maximum(a - 100.0, 0.0)


@triton.jit
def masked_blocks(
    diagonal, begin, end, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr, RULE: tl.constexpr
):
    """(lo, hi, full): which blocks of columns begin..end need a mask, for one block of rows.

    `full` blocks have BLOCK columns each; of them lo..hi may hold pairs that are no negatives.
    Column `diagonal` has the index of the first row. The incomplete last block, number `full`, is
    masked too.
    """
    full = tl.maximum(end - begin, 0) // BLOCK
    if RULE[0] or RULE[1] == "index":
        lo, hi = full * 0, full
    elif RULE[2] or RULE[1] == "diagonal":
        lo = tl.minimum(tl.maximum(diagonal - begin, 0) // BLOCK, full)
        hi = tl.minimum((tl.maximum(diagonal + BLOCK_ROWS - begin, 0) + (BLOCK - 1)) // BLOCK, full)
    else:
        lo, hi = full * 0, full * 0
    return lo, hi, full


@triton.jit
def plain_start(i, begin, lo, hi, BLOCK: tl.constexpr):
    """First column of the i-th block that needs no mask (`masked_blocks`)."""
    return tl.multiple_of(begin + tl.where(i < lo, i, i + (hi - lo)) * BLOCK, BLOCK)


@triton.jit
def masked_start(i, begin, lo, hi, full, BLOCK: tl.constexpr):
    """The same of the i-th block that needs one; the incomplete one is the last."""
    return tl.multiple_of(begin + tl.where(i < hi - lo, lo + i, full) * BLOCK, BLOCK)


@triton.jit
def load_tile(scores_ptr, tile, N, stride, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr):
    """(products, their offsets, mask) of tile (pid_n, pid_m) of scores [N, stride] in memory.

    Rows are padded to their stride, whose multiple of 16 lets whole vectors be moved.
    """
    pid_n, pid_m = tile
    offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = offs_n < N
    offs_k = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    at = offs_n.to(tl.int64)[:, None] * stride + offs_k[None, :]
    mask = mask_n[:, None] & (offs_k < stride)[None, :]
    return tl.load(scores_ptr + at, mask=mask, other=0.0), at, mask


@triton.jit
def mask_scores(x, query, key, inside, regular, RULE: tl.constexpr):
    """`x` with -inf where key k is no negative of query q, or not `inside`.

    query: (index, label, positive) and key: (index, label), which broadcast to x, as `inside`.
    """
    offs_q, label_q, positive = query
    offs_k, label_k = key
    allowed = inside
    if RULE[0]:
        allowed &= (label_q != label_k) | (offs_k >= regular)
    if RULE[2]:
        allowed &= (offs_q != offs_k) | (offs_k >= regular)
    if RULE[1] != "none":
        allowed &= offs_k != positive
    return tl.where(allowed, x, float("-inf"))


@triton.jit
def sigmoid(x):
    """1 / (1 + 2^-x) without overflow."""
    y = tl.exp2(-tl.abs(x))
    return tl.where(x < 0, y, 1.0) / (1.0 + y)


@triton.jit
def log1p_unit(y):
    """log(1 + y) for y in 0..1, to float32's relative accuracy."""
    p = tl.full(y.shape, _LOG1P[9], tl.float32)
    for k in tl.static_range(9):
        p = p * y + _LOG1P[8 - k]
    return y * p


@triton.jit
def softplus(x):
    """log(1 + 2^x), natural logarithm, to float32's relative accuracy at both ends."""
    return tl.where(x > 0, x * _LN2, 0.0) + log1p_unit(tl.exp2(-tl.abs(x)))


@triton.jit
def log1p(y):
    """log(1 + y) for y > -1, natural logarithm, to float32's relative accuracy where y >= 0."""
    bits = (1.0 + y).to(tl.int32, bitcast=True)
    mantissa = ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
    large = ((bits >> 23) - 127).to(tl.float32) * _LN2 + log1p_unit(mantissa - 1.0)
    result = tl.where((y >= 0.0) & (y <= 1.0), log1p_unit(y), large)
    return tl.where(y < float("inf"), result, y)  # NaN and inf have no exponent


@triton.jit
def normalised(sums, t):
    """(m, s) with s * 2^m = sums * 2^t and s in 1..2; (FLOOR, 0) where sums are 0."""
    bits = sums.to(tl.int32, bitcast=True)
    mantissa = ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
    exponent = t + ((bits >> 23) - 127).to(tl.float32)
    return tl.where(sums > 0, exponent, FLOOR), tl.where(sums > 0, mantissa, sums)


@dataclass(frozen=True)
class Pairs:
    """A contrast without its features: temperature, bias and which pairs are negatives.

    Attributes:
        temperature: 0-d, float32, on the device of the features; the host does not read it.
        bias: 0-d, float32; sigmoid form only.
        positive: [N], int64: index of each query's positive among the keys. "diagonal": key i for
            query i. None: positives are no keys.
        labels: Of queries [N] and keys [M - extra]: pairs with equal labels are no negatives.
        exclude_self: Key i is no negative of query i.
        extra: Number of keys, the last ones, that are negatives of every query.
        sigmoid: The terms are log(1 + e^s), not e^s.
        first: Index of the first query in the whole batch.
    """

    temperature: torch.Tensor
    bias: torch.Tensor | None = None
    positive: torch.Tensor | str | None = None
    labels: tuple[torch.Tensor, torch.Tensor] | None = None
    exclude_self: bool = False
    extra: int = 0
    sigmoid: bool = False
    first: int = 0

    @property
    def indexed(self) -> bool:
        """Whether positives are given by index."""
        return isinstance(self.positive, torch.Tensor)

    def part(self, start: int, stop: int) -> Pairs:
        """Pairs of the queries `start` to `stop`."""
        positive, labels = self.positive, self.labels
        if isinstance(positive, torch.Tensor):
            positive = positive[start:stop]
        if labels is not None:
            labels = labels[0][start:stop], labels[1]
        return replace(self, positive=positive, labels=labels, first=self.first + start)

    def arguments(self, columns: int) -> dict[str, Any]:
        """The same as arguments of the kernels, for `columns` keys."""
        return {**self.tensors(), **self.numbers(columns)}

    def tensors(self) -> dict[str, torch.Tensor | None]:
        """The pointers among the arguments of the kernels."""
        positive = self.positive
        return {
            "temperature_ptr": self.temperature,
            "bias_ptr": self.bias,
            "positive_ptr": positive if isinstance(positive, torch.Tensor) else None,
            "query_label_ptr": None if self.labels is None else self.labels[0],
            "key_label_ptr": None if self.labels is None else self.labels[1],
        }

    def numbers(self, columns: int) -> dict[str, Any]:
        """The other arguments of the kernels, for `columns` keys."""
        return {
            "regular": columns - self.extra,
            "first": self.first,
            "SIGMOID": self.sigmoid,
            "POSITIVE": "index" if self.indexed else self.positive or "none",
            "EXCLUDE_SELF": self.exclude_self,
        }


class WeightTerms(NamedTuple):
    """One direction's weights, 2^(x - max_score) * scale; one entry per query, float32."""

    max_score: torch.Tensor
    scale: torch.Tensor  # within -1..1


def block_d(features: int, itemsize: int) -> int:
    """Features of a program's block: a power of two, so that there are few binaries."""
    return max(128 // itemsize, 1 << (features - 1).bit_length())


__all__ = ["LOG2", "Pairs", "WeightTerms", "block_d"]

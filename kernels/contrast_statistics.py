"""Softmax statistics of each row, and of each column, in one pass over the scores.

    row_sum[i] = sum_j 2^(x_ij - row_max[i])            over the negatives j of query i
    column_sum[j] = sum_i 2^(x_ij - column_max[j])      over the queries i with negative j
    positive_score[i] = x of the positive, if it is a key

x as in `contrast_common.py`. Sigmoid form: row_sum[i] = sum_j log(1 + 2^x_ij), and no maximum.
A maximum may be below the largest score by less than 1; the sums are then at least 1.

A program takes a block of queries and a range of keys. Blocks of negatives alone are summed
relative to one constant t, `shift_of` the temperature, so one exponential a score serves its row
and its column without a search for maxima. If a sum leaves the range without loss of precision, the
program repeats all its blocks relative to their own maxima, as masked blocks always are; the result
is right for any scores. Rows have one partial result per range, columns one per block of queries,
merged after every `MAX_BLOCKS` blocks. The number of programs depends on the sizes and the tile
alone, never on the GPU. Deterministic: no atomics.

In the matrix product keys are the rows and queries the columns: the running sums of queries need no
exchange between threads until the end, and the sum of a key over queries stays within a warp.

Numerics contract: `contrast_common.py`; sums relative to t lose terms below 2^-126, 2^-46 of a sum.
Cost: 2*N*M*D flop, 1 exponential a score (2 with a mask); reads N*D + (N / block_n)*M*D elements,
mostly from L2, and writes 8 bytes a column and block of queries for column statistics.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import Tile, arch_of, cdiv, tile_for
from mmcl_fast.kernels.contrast_common import (
    FLOOR,
    LARGEST_SUM,
    SMALLEST_SUM,
    Pairs,
    block_d,
    load_block,
    load_labels,
    load_positive,
    load_rows,
    mask_scores,
    masked_blocks,
    masked_start,
    normalised,
    plain_start,
    shift_of,
    softplus,
    units,
)

MAX_BLOCKS = 256  # of queries at a time: partial column statistics of 2 KiB a column at most
# Two programs for each multiprocessor of the largest GPU so far. A constant, not a query of the
# device: results do not depend on the GPU.
TARGET_PROGRAMS = 264
MANY_PROGRAMS = 1056  # where a further range costs little: eight each, for a short tail
_MERGE_BLOCK = 32, 64  # partial results and rows that a program merges at a time


class Partial(NamedTuple):
    """P partial statistics of rows or of columns, to be merged; float32."""

    max_score: torch.Tensor  # [P, rows]
    exp_sum: torch.Tensor  # [P, rows], relative to `max_score`
    positive_score: torch.Tensor | None = None  # [P, rows], whose sum is the score


@triton.jit(do_not_specialize=["N", "M", "regular", "first", "split"])
def _contrast_statistics_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    query_ptr,
    key_ptr,
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
    D: tl.int32,
    regular: tl.int32,
    first: tl.int32,
    split: tl.int32,
    stride_qn: tl.int64,
    stride_km: tl.int64,
    stride_out: tl.int64,
    SIGMOID: tl.constexpr,
    POSITIVE: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    TRIANGLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_N queries and `split` keys from split * pid_m on.

    TRIANGLE: query and key are the same rows. Only pairs above the diagonal are scored, each for
    its row and for its column.
    """
    pid_n, pid_m = tl.program_id(0), tl.program_id(1)
    a, b = units(temperature_ptr, bias_ptr)
    t = shift_of(a)
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    BLOCKS: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF or TRIANGLE)
    COLUMNS: tl.constexpr = column_sum_ptr is not None
    offs_n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = offs_n < N
    diagonal = first + pid_n * BLOCK_N
    begin = pid_m * split
    end = tl.minimum(begin + split, M)
    if TRIANGLE:
        begin = tl.maximum(begin, diagonal // BLOCK_M * BLOCK_M)
    lo, hi, full = masked_blocks(diagonal, begin, end, BLOCK_N, BLOCK_M, BLOCKS)
    if (pid_n + 1) * BLOCK_N > N:  # queries past the end would count in the columns
        lo, hi = full * 0, full
    q = tl.trans(load_rows(query_ptr, offs_n, mask_n, stride_qn, D, BLOCK_D))
    column = pid_n.to(tl.int64) * M
    terms = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    least = tl.full([BLOCK_M], 1.0, tl.float32)
    most = tl.full([BLOCK_M], 1.0, tl.float32)
    for i in range(full - (hi - lo)):
        start = plain_start(i, begin, lo, hi, BLOCK_M)
        offs_m, _, k = load_block(key_ptr, start, end, stride_km, D, BLOCK_M, BLOCK_D, MASKED=False)
        x = tl.dot(k, q, input_precision="ieee")
        e = softplus(x * a + b) if SIGMOID else tl.exp2(x * a + (b - t))
        terms += e
        if COLUMNS:
            sums = tl.sum(e, 1)
            if not SIGMOID:
                least, most = tl.minimum(least, sums), tl.maximum(most, sums)
                column_max, sums = normalised(sums, t)
                tl.store(column_max_ptr + (column + offs_m), column_max)
            tl.store(column_sum_ptr + (column + offs_m), sums)
    sums = tl.sum(terms, 0)
    if not SIGMOID:  # noqa: SIM102  (a constant of the binary)
        if full > hi - lo:
            low = tl.minimum(tl.min(least, 0), tl.min(tl.where(mask_n, sums, 1.0), 0))
            high = tl.maximum(tl.max(most, 0), tl.max(sums, 0))
            if not ((low >= SMALLEST_SUM) & (high <= LARGEST_SUM)):
                lo, hi = full * 0, full
                sums = tl.zeros_like(sums)
                tl.debug_barrier()  # columns are written again, perhaps by other threads
    row_max = tl.full([BLOCK_N], FLOOR, tl.float32)
    exp_sum = tl.zeros([BLOCK_N], tl.float32)
    positive_score = tl.zeros([BLOCK_N], tl.float32)
    label_q = load_labels(query_label_ptr, offs_n, mask_n)
    positive = load_positive(positive_ptr, first + offs_n, offs_n, mask_n, POSITIVE)
    query = (first + offs_n)[None, :], label_q[None, :], positive[None, :]
    rest = (end > begin + full * BLOCK_M).to(tl.int32)
    for i in range(hi - lo + rest):
        start = masked_start(i, begin, lo, hi, full, BLOCK_M)
        offs_m, mask_m, k = load_block(
            key_ptr, start, end, stride_km, D, BLOCK_M, BLOCK_D, MASKED=True
        )
        x = tl.dot(k, q, input_precision="ieee") * a + b
        inside = mask_m[:, None] & mask_n[None, :]
        if TRIANGLE:
            inside &= offs_m[:, None] > (first + offs_n)[None, :]
        if POSITIVE != "none":
            positive_score += tl.sum(tl.where(offs_m[:, None] == positive[None, :], x, 0.0), 0)
        label_k = load_labels(key_label_ptr, offs_m, offs_m < regular)
        x = mask_scores(x, query, (offs_m[:, None], label_k[:, None]), inside, regular, RULE)
        if SIGMOID:
            e = softplus(x)
            exp_sum += tl.sum(e, 0)
            if COLUMNS:
                tl.store(column_sum_ptr + (column + offs_m), tl.sum(e, 1), mask=mask_m)
        else:
            new_max = tl.maximum(row_max, tl.max(x, 0))
            rescaled = exp_sum * tl.exp2(row_max - new_max)
            exp_sum = rescaled + tl.sum(tl.exp2(x - new_max[None, :]), 0)
            row_max = new_max
            if COLUMNS:
                column_max = tl.maximum(tl.max(x, 1), FLOOR)
                column_sum = tl.sum(tl.exp2(x - column_max[:, None]), 1)
                tl.store(column_max_ptr + (column + offs_m), column_max, mask=mask_m)
                tl.store(column_sum_ptr + (column + offs_m), column_sum, mask=mask_m)
    if SIGMOID:
        exp_sum += sums
    else:
        plain_max, plain_sum = normalised(sums, t)
        new_max = tl.maximum(row_max, plain_max)
        exp_sum = exp_sum * tl.exp2(row_max - new_max) + plain_sum * tl.exp2(plain_max - new_max)
        row_max = new_max
    at = pid_m.to(tl.int64) * stride_out + offs_n
    tl.store(row_max_ptr + at, row_max, mask=mask_n)
    tl.store(row_sum_ptr + at, exp_sum, mask=mask_n)
    if POSITIVE != "none":
        tl.store(positive_score_ptr + at, positive_score, mask=mask_n)


def contrast_statistics_fwd(
    query: torch.Tensor,
    key: torch.Tensor,
    pairs: Pairs,
    *,
    columns: bool,
    triangle: bool = False,
) -> tuple[Partial, Partial | None]:
    """Partial statistics of rows and, on request, of columns, from features.

    Args:
        query: [N, D], float16 | bfloat16 | float32, stride 1 along D, N > 0.
        key: [M, D], same dtype, stride 1 along D, M > 0.
        pairs: Negatives, temperature and bias.
        columns: Return the statistics of columns as well.
        triangle: `query` and `key` are the same rows with symmetric negatives
            (`pairs.exclude_self`, no labels). Half the work; the results of columns are further
            partial results of the rows.

    Raises: ValueError (a GPU without tiles, CPU tensors outside of the interpreter).
    """
    n, m = len(query), len(key)
    width = block_d(query.shape[1], query.element_size())
    arch = arch_of(_contrast_statistics_kernel, query)
    tile = tile_for("contrast_statistics", arch, query.element_size(), width)
    at_once = MAX_BLOCKS * tile.block_n
    blocks = cdiv(min(n, at_once), tile.block_n)
    split, parts = column_ranges(blocks, m, tile.block_m, MANY_PROGRAMS)
    rows = Partial(*(query.new_empty(parts, n, dtype=torch.float32) for _ in range(3)))
    column_parts = []
    for start in range(0, n, at_once):
        part = slice(start, min(start + at_once, n))
        column_part = None
        if columns:
            blocks = cdiv(part.stop - start, tile.block_n)
            column_part = _empty_columns(query, blocks, m, zeroed=triangle)
            column_parts.append(column_part)
        _launch(
            (query[part], key, pairs.part(part.start, part.stop)),
            Partial(*(x[:, part] for x in rows)),
            column_part,
            tile,
            (split, parts),
            triangle=triangle,
        )
    if len(column_parts) > 1:
        merged_parts = [merged(x) for x in column_parts]
        return rows, Partial(
            torch.cat([x.max_score for x in merged_parts]),
            torch.cat([x.exp_sum for x in merged_parts]),
        )
    return rows, column_parts[0] if column_parts else None


def registers_of(tile: Tile, *, labels: bool, index: bool) -> int | None:
    """Register limit of a tile; none where every block is masked, as that loop would spill."""
    return None if labels or index else tile.registers


def _empty_columns(like: torch.Tensor, blocks: int, m: int, *, zeroed: bool) -> Partial:
    if zeroed:  # programs write part of them
        return Partial(
            like.new_full((blocks, m), FLOOR.value, dtype=torch.float32),
            like.new_zeros((blocks, m), dtype=torch.float32),
        )
    return Partial(*(like.new_empty((blocks, m), dtype=torch.float32) for _ in range(2)))


def _launch(
    sources: tuple[torch.Tensor, torch.Tensor, Pairs],
    rows: Partial,
    columns: Partial | None,
    tile: Tile,
    ranges: tuple[int, int],
    *,
    triangle: bool,
) -> None:
    query, key, pairs = sources
    split, parts = ranges
    with torch.cuda.device_of(query):
        _contrast_statistics_kernel[(cdiv(len(query), tile.block_n), parts)](
            query_ptr=query,
            key_ptr=key,
            row_max_ptr=rows.max_score,
            row_sum_ptr=rows.exp_sum,
            positive_score_ptr=rows.positive_score,
            column_max_ptr=None if columns is None else columns.max_score,
            column_sum_ptr=None if columns is None else columns.exp_sum,
            N=len(query),
            M=len(key),
            D=query.shape[1],
            split=split,
            stride_qn=query.stride(0),
            stride_km=key.stride(0),
            stride_out=rows.max_score.stride(0),
            TRIANGLE=triangle,
            BLOCK_N=tile.block_n,
            BLOCK_M=tile.block_m,
            BLOCK_D=block_d(query.shape[1], query.element_size()),
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            maxnreg=registers_of(tile, labels=pairs.labels is not None, index=pairs.indexed),
            enable_fp_fusion=True,
            **pairs.arguments(len(key)),
        )


@triton.jit
def merge(  # noqa: PLR0913  (inlined: no API)
    row_max, exp_sum, max_ptr, exp_sum_ptr, offs_n, mask_n, P, N, BLOCK_P: tl.constexpr
):
    """(row_max, exp_sum) of rows `offs_n`, merged with P partial results [P, N]."""
    for start in range(0, P, BLOCK_P):
        offs_p = start + tl.arange(0, BLOCK_P)
        at = offs_p.to(tl.int64)[:, None] * N + offs_n[None, :]
        mask = (offs_p < P)[:, None] & mask_n[None, :]
        maxima = tl.load(max_ptr + at, mask=mask, other=FLOOR)
        sums = tl.load(exp_sum_ptr + at, mask=mask, other=0.0)
        new_max = tl.maximum(row_max, tl.max(maxima, 0))
        terms = tl.sum(sums * tl.exp2(maxima - new_max[None, :]), 0)
        exp_sum = exp_sum * tl.exp2(row_max - new_max) + terms
        row_max = new_max
    return row_max, exp_sum


@triton.jit(do_not_specialize=["P"])
def _contrast_merge_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    max_ptr,
    exp_sum_ptr,
    positive_score_ptr,
    merged_max_ptr,
    merged_exp_sum_ptr,
    merged_positive_ptr,
    P: tl.int32,
    N: tl.int32,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One program: all partial results of BLOCK_N rows, BLOCK_P at a time."""
    offs_n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    mask_n = offs_n < N
    row_max = tl.full([BLOCK_N], FLOOR, tl.float32)
    exp_sum = tl.zeros([BLOCK_N], tl.float32)
    positive_score = tl.zeros([BLOCK_N], tl.float32)
    row_max, exp_sum = merge(row_max, exp_sum, max_ptr, exp_sum_ptr, offs_n, mask_n, P, N, BLOCK_P)
    if positive_score_ptr is not None:
        for start in range(0, P, BLOCK_P):
            offs_p = start + tl.arange(0, BLOCK_P)
            at = offs_p.to(tl.int64)[:, None] * N + offs_n[None, :]
            mask = (offs_p < P)[:, None] & mask_n[None, :]
            positive_score += tl.sum(tl.load(positive_score_ptr + at, mask=mask, other=0.0), 0)
    tl.store(merged_max_ptr + offs_n, row_max, mask=mask_n)
    tl.store(merged_exp_sum_ptr + offs_n, exp_sum, mask=mask_n)
    if positive_score_ptr is not None:
        tl.store(merged_positive_ptr + offs_n, positive_score, mask=mask_n)


def merged(partial: Partial) -> Partial:
    """The merged statistics, [1, N] each."""
    parts, n = partial.max_score.shape
    if parts == 1:
        return partial
    result = Partial(*(None if x is None else x.new_empty(1, n) for x in partial))
    with torch.cuda.device_of(partial.max_score):
        _contrast_merge_kernel[(cdiv(n, _MERGE_BLOCK[1]),)](
            max_ptr=partial.max_score,
            exp_sum_ptr=partial.exp_sum,
            positive_score_ptr=partial.positive_score,
            merged_max_ptr=result.max_score,
            merged_exp_sum_ptr=result.exp_sum,
            merged_positive_ptr=result.positive_score,
            P=parts,
            N=n,
            BLOCK_P=_MERGE_BLOCK[0],
            BLOCK_N=_MERGE_BLOCK[1],
            num_warps=4,
            enable_fp_fusion=True,
        )
    return result


def column_ranges(
    row_blocks: int, columns: int, block_m: int, programs: int | None = None
) -> tuple[int, int]:
    """(columns of a range, number of ranges), for about `programs` programs in all.

    Args:
        row_blocks: Blocks of rows, each with a program for every range.
        columns: Columns in all.
        block_m: A range is a multiple of this, but for the last one.
        programs: Default: `TARGET_PROGRAMS`.
    """
    programs = TARGET_PROGRAMS if programs is None else programs
    blocks = cdiv(columns, block_m)
    parts = max(1, min(blocks, programs // max(row_blocks, 1)))
    split = cdiv(blocks, parts) * block_m
    return split, cdiv(columns, split)


KERNEL = _contrast_statistics_kernel  # for `arch_of`

__all__ = ["KERNEL", "Partial", "column_ranges", "contrast_statistics_fwd", "merge", "merged"]

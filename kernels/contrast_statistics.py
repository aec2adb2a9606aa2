"""Sum of exponentials of each row, and each column, in one pass over the scores.

    row_total[i] = sum_j 2^(x_ij - row_top[i])     j in N(i)
    column_total[j], column_top[j]: the same over the queries i whose negative j is
    found[i] = x of the positive, if that is a key

in the units of `contrast_common.py`; sigmoid form: row_total[i] = sum_j log(1 + 2^x_ij), and no
top. `top` is the largest score or less than 1 below it, and totals are at least 1.

A program owns a block of queries and goes along a range of keys. Blocks that are all negatives are
summed relative to one number, `shift_of` the temperature: one exponential a score serves its row
and its column, and nobody looks for a maximum. Should a sum leave the range in which nothing is
lost, the program takes all its blocks again relative to their own maxima, as it takes those with
masks; the result is right for any scores. Rows have one partial result per range, columns one per
block of queries, merged after every `MAX_BLOCKS` blocks. No atomics: reruns are bit-equal. How many
programs there are depends on the sizes and the tile alone, never on the GPU's size.

The product's rows are keys, its columns queries: the sums that a program keeps need no exchange
between threads until the end, and a key's sum over queries lies within a warp.

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
    settled,
    shift_of,
    softplus,
    units,
)

MAX_BLOCKS = 256  # of queries at a time: partial column statistics of 2 KiB a column at most
WANTED_PROGRAMS = (
    264  # two for each multiprocessor of the largest GPU so far; a number, not a query
)
SHORT_PROGRAMS = 1056  # where a further range costs little: eight, so that the last ones are short
_MERGED = 32, 64  # partial results and rows that a program merges at a time


class Partial(NamedTuple):
    """Partial results, to be merged over their first axis; float32."""

    top: torch.Tensor  # [P, rows]
    total: torch.Tensor  # [P, rows]
    found: torch.Tensor | None = None  # [P, rows], to be added up


@triton.jit(do_not_specialize=["N", "M", "regular", "first", "split"])
def _contrast_statistics_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    query_ptr,
    key_ptr,
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
    """One program: BLOCK_N queries against keys split * pid_m and following.

    TRIANGLE: query and key are the same rows; only pairs above the diagonal are visited, each for
    its row and for its column.
    """
    pid_n, pid_m = tl.program_id(0), tl.program_id(1)
    a, b = units(temperature_ptr, bias_ptr)
    t = shift_of(a)
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    BLOCKS: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF or TRIANGLE)
    COLUMNS: tl.constexpr = column_total_ptr is not None
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
        start = tl.multiple_of(begin + tl.where(i < lo, i, i + (hi - lo)) * BLOCK_M, BLOCK_M)
        offs_m, _, k = load_block(key_ptr, start, end, stride_km, D, BLOCK_M, BLOCK_D, MASKED=False)
        x = tl.dot(k, q, input_precision="ieee")
        e = softplus(x * a + b) if SIGMOID else tl.exp2(x * a + (b - t))
        terms += e
        if COLUMNS:
            sums = tl.sum(e, 1)
            if not SIGMOID:
                least, most = tl.minimum(least, sums), tl.maximum(most, sums)
                ctop, sums = settled(sums, t)
                tl.store(column_top_ptr + (column + offs_m), ctop)
            tl.store(column_total_ptr + (column + offs_m), sums)
    sums = tl.sum(terms, 0)
    if not SIGMOID:  # noqa: SIM102  (a constant of the binary)
        if full > hi - lo:
            low = tl.minimum(tl.min(least, 0), tl.min(tl.where(mask_n, sums, 1.0), 0))
            high = tl.maximum(tl.max(most, 0), tl.max(sums, 0))
            if not ((low >= SMALLEST_SUM) & (high <= LARGEST_SUM)):
                lo, hi = full * 0, full
                sums = tl.zeros_like(sums)
                tl.debug_barrier()  # columns are written again, perhaps by other threads
    top = tl.full([BLOCK_N], FLOOR, tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    found = tl.zeros([BLOCK_N], tl.float32)
    label_q = load_labels(query_label_ptr, offs_n, mask_n)
    positive = load_positive(positive_ptr, first + offs_n, offs_n, mask_n, POSITIVE)
    query = (first + offs_n)[None, :], label_q[None, :], positive[None, :]
    rest = (end > begin + full * BLOCK_M).to(tl.int32)
    for i in range(hi - lo + rest):
        start = tl.multiple_of(begin + tl.where(i < hi - lo, lo + i, full) * BLOCK_M, BLOCK_M)
        offs_m, mask_m, k = load_block(
            key_ptr, start, end, stride_km, D, BLOCK_M, BLOCK_D, MASKED=True
        )
        x = tl.dot(k, q, input_precision="ieee") * a + b
        inside = mask_m[:, None] & mask_n[None, :]
        if TRIANGLE:
            inside &= offs_m[:, None] > (first + offs_n)[None, :]
        if POSITIVE != "none":
            found += tl.sum(tl.where(offs_m[:, None] == positive[None, :], x, 0.0), 0)
        label_k = load_labels(key_label_ptr, offs_m, offs_m < regular)
        x = mask_scores(x, query, (offs_m[:, None], label_k[:, None]), inside, regular, RULE)
        if SIGMOID:
            e = softplus(x)
            total += tl.sum(e, 0)
            if COLUMNS:
                tl.store(column_total_ptr + (column + offs_m), tl.sum(e, 1), mask=mask_m)
        else:
            raised = tl.maximum(top, tl.max(x, 0))
            total = total * tl.exp2(top - raised) + tl.sum(tl.exp2(x - raised[None, :]), 0)
            top = raised
            if COLUMNS:
                ctop = tl.maximum(tl.max(x, 1), FLOOR)
                csum = tl.sum(tl.exp2(x - ctop[:, None]), 1)
                tl.store(column_top_ptr + (column + offs_m), ctop, mask=mask_m)
                tl.store(column_total_ptr + (column + offs_m), csum, mask=mask_m)
    if SIGMOID:
        total += sums
    else:
        ptop, psum = settled(sums, t)
        raised = tl.maximum(top, ptop)
        total = total * tl.exp2(top - raised) + psum * tl.exp2(ptop - raised)
        top = raised
    at = pid_m.to(tl.int64) * stride_out + offs_n
    tl.store(row_top_ptr + at, top, mask=mask_n)
    tl.store(row_total_ptr + at, total, mask=mask_n)
    if POSITIVE != "none":
        tl.store(found_ptr + at, found, mask=mask_n)


def contrast_statistics_fwd(
    query: torch.Tensor,
    key: torch.Tensor,
    pairs: Pairs,
    *,
    columns: bool,
    triangle: bool = False,
) -> tuple[Partial, Partial | None]:
    """Partial statistics of rows and, if asked for, columns, from features.

    Args:
        query: [N, D], float16 | bfloat16 | float32, stride 1 along D, N > 0.
        key: [M, D], the same; M > 0.
        pairs: Negatives and units.
        columns: Also those of columns.
        triangle: The two are the same rows, and so are the negatives (`pairs.exclude_self`, no
            labels): half the work; the columns' results are further partial results of the rows.

    Raises: ValueError (no GPU that the tiles know, CPU tensors outside the interpreter).
    """
    n, m = len(query), len(key)
    width = block_d(query.shape[1], query.element_size())
    arch = arch_of(_contrast_statistics_kernel, query)
    tile = tile_for("contrast_statistics", arch, query.element_size(), width)
    at_once = MAX_BLOCKS * tile.block_n
    blocks = cdiv(min(n, at_once), tile.block_n)
    split, parts = column_ranges(blocks, m, tile.block_m, SHORT_PROGRAMS)
    rows = Partial(*(query.new_empty(parts, n, dtype=torch.float32) for _ in range(3)))
    others = []
    for start in range(0, n, at_once):
        part = slice(start, min(start + at_once, n))
        found = None
        if columns:
            found = _columns(query, cdiv(part.stop - start, tile.block_n), m, full=triangle)
            others.append(found)
        _launch(
            (query[part], key, pairs.part(part.start, part.stop)),
            Partial(*(x[:, part] for x in rows)),
            found,
            tile,
            (split, parts),
            triangle=triangle,
        )
    if len(others) > 1:
        found = [merged(x) for x in others]
        others = [
            Partial(*(torch.cat([getattr(x, name) for x in found]) for name in ("top", "total")))
        ]
    return rows, others[0] if others else None


def registers_of(tile: Tile, *, labels: bool, index: bool) -> int | None:
    """A tile's limit, for loops without masks: where every block has one, it would spill."""
    return None if labels or index else tile.registers


def _columns(like: torch.Tensor, blocks: int, m: int, *, full: bool) -> Partial:
    if full:  # not all of them will be visited
        return Partial(
            like.new_full((blocks, m), FLOOR.value, dtype=torch.float32),
            like.new_zeros((blocks, m), dtype=torch.float32),
        )
    return Partial(*(like.new_empty((blocks, m), dtype=torch.float32) for _ in range(2)))


def _launch(
    sources: tuple[torch.Tensor, torch.Tensor, Pairs],
    rows: Partial,
    others: Partial | None,
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
            row_top_ptr=rows.top,
            row_total_ptr=rows.total,
            found_ptr=rows.found,
            column_top_ptr=None if others is None else others.top,
            column_total_ptr=None if others is None else others.total,
            N=len(query),
            M=len(key),
            D=query.shape[1],
            split=split,
            stride_qn=query.stride(0),
            stride_km=key.stride(0),
            stride_out=rows.top.stride(0),
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
    top, total, top_ptr, total_ptr, offs_n, mask_n, P, N, BLOCK_P: tl.constexpr
):
    """(top, total) of rows `offs_n` with P partial results [P, N] more."""
    for start in range(0, P, BLOCK_P):
        offs_p = start + tl.arange(0, BLOCK_P)
        at = offs_p.to(tl.int64)[:, None] * N + offs_n[None, :]
        mask = (offs_p < P)[:, None] & mask_n[None, :]
        tops = tl.load(top_ptr + at, mask=mask, other=FLOOR)
        totals = tl.load(total_ptr + at, mask=mask, other=0.0)
        raised = tl.maximum(top, tl.max(tops, 0))
        terms = tl.sum(totals * tl.exp2(tops - raised[None, :]), 0)
        total = total * tl.exp2(top - raised) + terms
        top = raised
    return top, total


@triton.jit(do_not_specialize=["P"])
def _contrast_merge_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    top_ptr,
    total_ptr,
    found_ptr,
    merged_top_ptr,
    merged_total_ptr,
    merged_found_ptr,
    P: tl.int32,
    N: tl.int32,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One program: all partial results of BLOCK_N rows, BLOCK_P at a time."""
    offs_n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    mask_n = offs_n < N
    top = tl.full([BLOCK_N], FLOOR, tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    found = tl.zeros([BLOCK_N], tl.float32)
    top, total = merge(top, total, top_ptr, total_ptr, offs_n, mask_n, P, N, BLOCK_P)
    if found_ptr is not None:
        for start in range(0, P, BLOCK_P):
            offs_p = start + tl.arange(0, BLOCK_P)
            at = offs_p.to(tl.int64)[:, None] * N + offs_n[None, :]
            mask = (offs_p < P)[:, None] & mask_n[None, :]
            found += tl.sum(tl.load(found_ptr + at, mask=mask, other=0.0), 0)
    tl.store(merged_top_ptr + offs_n, top, mask=mask_n)
    tl.store(merged_total_ptr + offs_n, total, mask=mask_n)
    if found_ptr is not None:
        tl.store(merged_found_ptr + offs_n, found, mask=mask_n)


def merged(partial: Partial) -> Partial:
    """The same with one partial result, [1, N] each."""
    parts, n = partial.top.shape
    if parts == 1:
        return partial
    of = Partial(*(None if x is None else x.new_empty(1, n) for x in partial))
    with torch.cuda.device_of(partial.top):
        _contrast_merge_kernel[(cdiv(n, _MERGED[1]),)](
            top_ptr=partial.top,
            total_ptr=partial.total,
            found_ptr=partial.found,
            merged_top_ptr=of.top,
            merged_total_ptr=of.total,
            merged_found_ptr=of.found,
            P=parts,
            N=n,
            BLOCK_P=_MERGED[0],
            BLOCK_N=_MERGED[1],
            num_warps=4,
            enable_fp_fusion=True,
        )
    return of


def column_ranges(
    row_blocks: int, columns: int, block_m: int, wanted: int = WANTED_PROGRAMS
) -> tuple[int, int]:
    """(columns a program takes, how many such ranges): as many programs as keep a GPU busy."""
    blocks = cdiv(columns, block_m)
    parts = max(1, min(blocks, wanted // max(row_blocks, 1)))
    split = cdiv(blocks, parts) * block_m
    return split, cdiv(columns, split)


KERNEL = _contrast_statistics_kernel  # what `arch_of` is asked about

__all__ = ["KERNEL", "Partial", "column_ranges", "contrast_statistics_fwd", "merge", "merged"]

"""Maximum and sum of exponentials of each row, and each column, in one pass over the scores.

    row_top[i] = max_j x_ij     row_total[i] = sum_j 2^(x_ij - row_top[i])     j in N(i)
    column_top[j], column_total[j]: the same over the queries i whose negative j is
    found[i] = x of the positive, if that is a key

in the units of `pairs.py`; sigmoid form: row_total[i] = sum_j log(1 + 2^x_ij), and no maximum.

A program takes every S-th block of rows against one range of columns. What it learns of columns it
keeps in a row of its own of [S, M] partial results, S at most `MAX_STRIPES`; rows have one partial
result per range. No atomics: the caller merges partial results in a fixed order, so reruns are
bit-equal. How many there are depends on the sizes and the tile alone, never on the GPU's size.

Scores are products of features (query, key) or are read from memory (scores), for features too
long for registers; `x` is a factor and a shift away.

Numerics contract: `pairs.py`. Cost for products: 2*N*M*D flop, 2 exponentials a score with columns,
1 without; reads N*D + (N / block_n)*M*D elements, mostly from L2, and moves 16 bytes a column and
block of rows for column statistics. From scores: 4 bytes a score, read once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import Tile, arch_of, tile_for
from mmcl_fast.kernels.pairs import (
    FLOOR,
    Pairs,
    block_d,
    fold,
    hide,
    is_plain,
    load_labels,
    load_positive,
    load_rows,
    softplus,
    units,
)

MAX_STRIPES = 256  # rows of partial column statistics: 2 KiB a column at most
WANTED_PROGRAMS = (
    264  # two for each multiprocessor of the largest GPU so far; a number, not a query
)


class Partial(NamedTuple):
    """Partial results, to be merged over their first axis; float32."""

    top: torch.Tensor  # [P, rows]
    total: torch.Tensor  # [P, rows]
    found: torch.Tensor | None = None  # [P, rows], to be added up


@triton.jit(do_not_specialize=["N", "M", "regular", "first", "split"])
def _contrast_statistics_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    query_ptr,
    key_ptr,
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
    D: tl.int32,
    regular: tl.int32,
    first: tl.int32,
    split: tl.int32,
    stride_qn: tl.int64,
    stride_km: tl.int64,
    stride_sn: tl.int64,
    SIGMOID: tl.constexpr,
    POSITIVE: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    TRIANGLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: blocks pid, pid + S, ... of rows against columns split * pid_m and following.

    TRIANGLE: query and key are the same rows; only pairs above the diagonal are visited, each for
    its row and for its column.
    """
    pid_n, pid_m = tl.program_id(0), tl.program_id(1)
    a, b = units(temperature_ptr, bias_ptr)
    begin = pid_m * split
    end = tl.minimum(begin + split, M)
    LABELS: tl.constexpr = query_label_ptr is not None
    COLUMNS: tl.constexpr = column_total_ptr is not None
    for block in range(pid_n, tl.cdiv(N, BLOCK_N), tl.num_programs(0)):
        offs_n = block * BLOCK_N + tl.arange(0, BLOCK_N)
        mask_n = offs_n < N
        offs_q = first + offs_n
        label_q = load_labels(query_label_ptr, offs_n, mask_n)
        positive = load_positive(positive_ptr, offs_q, offs_n, mask_n, POSITIVE)
        if scores_ptr is None:
            q = load_rows(query_ptr, offs_n, mask_n, stride_qn, D, BLOCK_D)
        top = tl.full([BLOCK_N], FLOOR, tl.float32)
        total = tl.zeros([BLOCK_N], tl.float32)
        found = tl.zeros([BLOCK_N], tl.float32)
        left = begin
        if TRIANGLE:
            left = tl.maximum(begin, (first + block * BLOCK_N) // BLOCK_M * BLOCK_M)
        for start in range(left, end, BLOCK_M):
            offs_k = start + tl.arange(0, BLOCK_M)
            mask_k = offs_k < end
            if scores_ptr is None:
                k = load_rows(key_ptr, offs_k, mask_k, stride_km, D, BLOCK_D)
                x = tl.dot(q, tl.trans(k), input_precision="ieee")
            else:  # rows are padded to their stride, which is a multiple of BLOCK_M
                at = offs_n.to(tl.int64)[:, None] * stride_sn + offs_k[None, :]
                x = tl.load(
                    scores_ptr + at, mask=mask_n[:, None] & (offs_k < stride_sn)[None, :], other=0.0
                )
            x = x * a + b
            plain = is_plain(
                first + block * BLOCK_N, start, BLOCK_N, BLOCK_M, LABELS, POSITIVE, EXCLUDE_SELF
            )
            if TRIANGLE:
                plain = first + (block + 1) * BLOCK_N <= start
            if not (plain & (start + BLOCK_M <= end) & ((block + 1) * BLOCK_N <= N)):
                inside = mask_n[:, None] & mask_k[None, :]
                if TRIANGLE:
                    inside &= offs_k[None, :] > offs_q[:, None]
                if POSITIVE != "none":
                    found += tl.sum(tl.where(offs_k[None, :] == positive[:, None], x, 0.0), 1)
                x = hide(
                    x,
                    offs_q[:, None],
                    offs_k[None, :],
                    positive[:, None],
                    label_q[:, None],
                    load_labels(key_label_ptr, offs_k, offs_k < regular)[None, :],
                    inside,
                    regular,
                    LABELS,
                    POSITIVE,
                    EXCLUDE_SELF,
                )
            if SIGMOID:
                x = softplus(x)
                total += tl.sum(x, 1)
            else:
                top, total = fold(top, total, x)
            if COLUMNS:
                at = pid_n.to(tl.int64) * M + offs_k
                sums = tl.load(column_total_ptr + at, mask=mask_k, other=0.0)
                if SIGMOID:
                    sums += tl.sum(x, 0)
                else:
                    tops = tl.load(column_top_ptr + at, mask=mask_k, other=FLOOR)
                    tops, sums = fold(tops, sums, tl.trans(x))
                    tl.store(column_top_ptr + at, tops, mask=mask_k)
                tl.store(column_total_ptr + at, sums, mask=mask_k)
        at = pid_m.to(tl.int64) * N + offs_n
        tl.store(row_top_ptr + at, top, mask=mask_n)
        tl.store(row_total_ptr + at, total, mask=mask_n)
        if POSITIVE != "none":
            tl.store(found_ptr + at, found, mask=mask_n)
        if COLUMNS:  # the next block reads what this one wrote, perhaps in another thread
            tl.debug_barrier()


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
    width = block_d(query.shape[1], query.element_size())
    arch = arch_of(_contrast_statistics_kernel, query)
    tile = tile_for("contrast_statistics", arch, query.element_size(), width)
    return _launch(
        (query, key, None), (len(query), len(key)), pairs, tile, columns=columns, triangle=triangle
    )


def scores_statistics_fwd(
    scores: torch.Tensor, columns_of_scores: int, pairs: Pairs, *, columns: bool
) -> tuple[Partial, Partial | None]:
    """The same from products <q_i, k_j> in memory.

    Args:
        scores: [N, P], float32, contiguous; P is `columns_of_scores` rounded up to a multiple of
            16, what follows is not looked at.
        columns_of_scores: M.
        pairs: Negatives and units.
        columns: Also those of columns.
    """
    arch = arch_of(_contrast_statistics_kernel, scores)
    tile = tile_for("contrast_statistics", arch, 4, "scores")
    sizes = len(scores), columns_of_scores
    return _launch((None, None, scores), sizes, pairs, tile, columns=columns, triangle=False)


def _launch(
    sources: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
    sizes: tuple[int, int],
    pairs: Pairs,
    tile: Tile,
    *,
    columns: bool,
    triangle: bool,
) -> tuple[Partial, Partial | None]:
    query, key, scores = sources
    n, m = sizes
    like = scores if query is None else query
    assert like is not None
    stripes = min(triton.cdiv(n, tile.block_n), MAX_STRIPES)
    split, parts = column_ranges(stripes, m, tile.block_m)
    rows = Partial(*(like.new_empty(parts, n, dtype=torch.float32) for _ in range(3)))
    others = None
    if columns:
        shape = stripes, m
        others = Partial(
            like.new_full(shape, FLOOR.value, dtype=torch.float32),
            like.new_zeros(shape, dtype=torch.float32),
        )
    with torch.cuda.device_of(like):
        _contrast_statistics_kernel[(stripes, parts)](
            query,
            key,
            scores,
            row_top_ptr=rows.top,
            row_total_ptr=rows.total,
            found_ptr=rows.found,
            column_top_ptr=None if others is None else others.top,
            column_total_ptr=None if others is None else others.total,
            N=n,
            M=m,
            D=0 if query is None else query.shape[1],
            split=split,
            stride_qn=0 if query is None else query.stride(0),
            stride_km=0 if key is None else key.stride(0),
            stride_sn=0 if scores is None else scores.stride(0),
            TRIANGLE=triangle,
            BLOCK_N=tile.block_n,
            BLOCK_M=tile.block_m,
            BLOCK_D=16 if query is None else block_d(query.shape[1], query.element_size()),
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            enable_fp_fusion=True,
            **pairs.arguments(m),
        )
    return rows, others


def column_ranges(row_blocks: int, columns: int, block_m: int) -> tuple[int, int]:
    """(columns a program takes, how many such ranges): as many programs as keep a GPU busy."""
    blocks = triton.cdiv(columns, block_m)
    parts = max(1, min(blocks, WANTED_PROGRAMS // max(row_blocks, 1)))
    split = triton.cdiv(blocks, parts) * block_m
    return split, triton.cdiv(columns, split)


KERNEL = _contrast_statistics_kernel  # what `arch_of` is asked about

__all__ = ["KERNEL", "Partial", "column_ranges", "contrast_statistics_fwd", "scores_statistics_fwd"]

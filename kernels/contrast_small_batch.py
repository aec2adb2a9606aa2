"""Losses and gradient weights of a small batch in one launch, from its scores in memory.

    x_ij = <q_i, k_j> log2(e) / temperature
    w_ij = shift * ( 2^(x_ij - row_top_i) row_scale_i  +  2^(x_ij - column_top_j) column_scale_j )

for negative pairs, 0 for others, as in `contrast_score_weights.py`; losses and terms of rows and
columns are those of `contrast_row_losses.py`. `split`: the two terms are two matrices.

A program has a square tile of weights. It reads all scores of the tile's rows, and of its columns
where these have statistics, and so needs no result of another program: no barrier between
programs, no counter, no second launch. All scores are read 2 M / BLOCK times for that, from L2,
which is why batches are small (`mmcl_fast/losses/triton_backend/small_batch.py` states the limit).

Numerics contract: `contrast_common.py` and `contrast_score_weights.py`. Every program computes the
same statistics of a row in the same order. Deterministic: no atomics.
Cost: 4 (N / BLOCK + M / BLOCK) N M bytes read from L2, as many exponentials / 4, weights written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._launch import launch
from mmcl_fast.kernels._tiles import arch_of, cdiv, tile_for
from mmcl_fast.kernels.contrast_common import (
    FLOOR,
    SHIFT_FP16,
    Pairs,
    load_labels,
    load_positive,
    mask_scores,
    units,
)
from mmcl_fast.kernels.contrast_row_losses import row_terms, store_terms


@triton.jit
def _scores(scores_ptr, offs_n, offs_m, N, M, a):
    """(x, which of them there are) of a tile."""
    inside = (offs_n < N)[:, None] & (offs_m < M)[None, :]
    at = offs_n.to(tl.int64)[:, None] * M + offs_m[None, :]
    return tl.load(scores_ptr + at, mask=inside, other=0.0) * a, inside


@triton.jit
def _rows(  # noqa: PLR0913  (inlined: no API)
    scores_ptr, offs_n, query, key_label_ptr, N, M, regular, a, RULE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """(largest score, sum of 2^(x - largest), the positive's score) of rows over all columns."""
    largest = tl.full([BLOCK], FLOOR, tl.float32)
    exp_sum = tl.zeros([BLOCK], tl.float32)
    positive = tl.zeros([BLOCK], tl.float32)
    for start in range(0, M, BLOCK):
        offs_m = start + tl.arange(0, BLOCK)
        x, inside = _scores(scores_ptr, offs_n, offs_m, N, M, a)
        if RULE[1] != "none":
            positive += tl.sum(tl.where(offs_m[None, :] == query[2], x, 0.0), 1)
        label = load_labels(key_label_ptr, offs_m, offs_m < regular)[None, :]
        x = mask_scores(x, query, (offs_m[None, :], label), inside, regular, RULE)
        new = tl.maximum(largest, tl.max(x, 1))
        exp_sum = exp_sum * tl.exp2(largest - new) + tl.sum(tl.exp2(x - new[:, None]), 1)
        largest = new
    return largest, exp_sum, positive


@triton.jit
def _columns(  # noqa: PLR0913  (inlined: no API)
    scores_ptr, offs_m, key, query_label_ptr, N, M, regular, a, RULE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The same of columns over all rows; positives are on the diagonal."""
    largest = tl.full([BLOCK], FLOOR, tl.float32)
    exp_sum = tl.zeros([BLOCK], tl.float32)
    positive = tl.zeros([BLOCK], tl.float32)
    for start in range(0, N, BLOCK):
        offs_n = start + tl.arange(0, BLOCK)
        x, inside = _scores(scores_ptr, offs_n, offs_m, N, M, a)
        positive += tl.sum(tl.where(offs_n[:, None] == offs_m[None, :], x, 0.0), 0)
        label = load_labels(query_label_ptr, offs_n, offs_n < N)[:, None]
        query = offs_n[:, None], label, offs_n[:, None]
        x = mask_scores(x, query, key, inside, regular, RULE)
        new = tl.maximum(largest, tl.max(x, 0))
        exp_sum = exp_sum * tl.exp2(largest - new) + tl.sum(tl.exp2(x - new[None, :]), 0)
        largest = new
    return largest, exp_sum, positive


@triton.jit
def _query(query_label_ptr, positive_ptr, offs_n, N, POSITIVE: tl.constexpr):
    """(index, label, positive) of queries, [BLOCK, 1] each."""
    mask = offs_n < N
    label = load_labels(query_label_ptr, offs_n, mask)
    positive = load_positive(positive_ptr, offs_n, offs_n, mask, POSITIVE)
    return offs_n[:, None], label[:, None], positive[:, None]


@triton.jit
def _settled(  # noqa: PLR0913  (inlined: no API)
    rows, positive_ptr, dots_ptr, offs_n, N, M, a, FORM: tl.constexpr, BLOCK: tl.constexpr
):
    """(positive's score, terms) of rows; an index out of range is NaN."""
    largest, exp_sum, positive = rows
    mask = offs_n < N
    if dots_ptr is not None:
        positive = tl.load(dots_ptr + offs_n.to(tl.int64), mask=mask, other=0.0) * a
    if positive_ptr is not None:
        index = tl.load(positive_ptr + offs_n.to(tl.int64), mask=mask, other=0)
        in_range = (index >= 0) & (index < M)
        positive = tl.where(in_range, positive, float("nan"))
        exp_sum = tl.where(in_range, exp_sum, float("nan"))
    return positive, row_terms(positive, largest, exp_sum, tl.full([BLOCK], 1.0, tl.float32), FORM)


@triton.jit
def _contrast_small_batch_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    scores_ptr,
    temperature_ptr,
    positive_ptr,
    query_label_ptr,
    key_label_ptr,
    dots_ptr,
    losses_ptr,
    terms_ptr,
    weights_ptr,
    second_ptr,
    N: tl.int32,
    M: tl.int32,
    regular: tl.int32,
    FORM: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    SAME_ROWS: tl.constexpr,
    POSITIVE: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: a tile. Programs on the diagonal (or of the first column) write the losses."""
    num_m = tl.cdiv(M, BLOCK)
    pid_n, pid_m = tl.program_id(0) // num_m, tl.program_id(0) % num_m
    a, _ = units(temperature_ptr, None)
    RULE: tl.constexpr = (query_label_ptr is not None, POSITIVE, EXCLUDE_SELF)
    ELEMENT: tl.constexpr = weights_ptr.dtype.element_ty
    SHIFT: tl.constexpr = SHIFT_FP16 if weights_ptr.dtype.element_ty == tl.float16 else 0.0
    offs_n = pid_n * BLOCK + tl.arange(0, BLOCK)
    offs_m = pid_m * BLOCK + tl.arange(0, BLOCK)
    query = _query(query_label_ptr, positive_ptr, offs_n, N, POSITIVE)
    label = load_labels(key_label_ptr, offs_m, offs_m < regular)[None, :]
    key = offs_m[None, :], label
    rows = _rows(scores_ptr, offs_n, query, key_label_ptr, N, M, regular, a, RULE, BLOCK)
    positive, terms = _settled(rows, positive_ptr, dots_ptr, offs_n, N, M, a, FORM, BLOCK)
    loss = terms[0]
    at_n, mask_n = offs_n.to(tl.int64), offs_n < N
    x, inside = _scores(scores_ptr, offs_n, offs_m, N, M, a)
    x = mask_scores(x, query, key, inside, regular, RULE)
    w = tl.exp2(x - terms[1][:, None]) * terms[3][:, None]
    at = at_n[:, None] * M + offs_m[None, :]
    writes = pid_m == 0
    if SYMMETRIC or SAME_ROWS:
        if SYMMETRIC:
            columns = _columns(
                scores_ptr, offs_m, key, query_label_ptr, N, M, regular, a, RULE, BLOCK
            )
            column_positive, column_terms = _settled(
                columns, None, None, offs_m, M, M, a, FORM, BLOCK
            )
            writes = pid_m == pid_n
            if writes:
                of_columns = terms_ptr + 5 * N.to(tl.int64)
                store_terms(
                    of_columns, column_positive, column_terms, offs_m.to(tl.int64), offs_m < M, M
                )
            loss = (loss + column_terms[0]) * 0.5
        else:  # a pair's two scores may be rounded apart, so statistics are those of rows
            other = _query(query_label_ptr, positive_ptr, offs_m, N, POSITIVE)
            columns = _rows(scores_ptr, offs_m, other, key_label_ptr, N, M, regular, a, RULE, BLOCK)
            _, column_terms = _settled(
                columns, positive_ptr, dots_ptr, offs_m, N, M, a, FORM, BLOCK
            )
        second = tl.exp2(x - column_terms[1][None, :]) * column_terms[3][None, :]
        # Rows and columns past the end have a scale, but no negatives.
        if second_ptr is not None:
            tl.store(second_ptr + at, (second * (2.0**SHIFT)).to(ELEMENT), mask=inside)
        else:
            w += second
    tl.store(weights_ptr + at, (w * (2.0**SHIFT)).to(ELEMENT), mask=inside)
    if writes:
        store_terms(terms_ptr, positive, terms, at_n, mask_n, N)
        tl.store(losses_ptr + at_n, loss, mask=mask_n)


def contrast_small_batch_fwd(
    scores: torch.Tensor,
    pairs: Pairs,
    form: str,
    weights: tuple[torch.Tensor, torch.Tensor | None],
    *,
    symmetric: bool = False,
    same_rows: bool = False,
    dots: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [N] and terms of all rows; fills `weights`, times 2^14 in float16.

    Args:
        scores: Products <q_i, k_j>, [N, M], float32, contiguous, N > 0, M > 0.
        pairs: Negatives and temperature; no bias.
        form: "softmax" | "decoupled".
        weights: [N, M] each, contiguous, of the features' dtype: the sum of both terms, or the
            rows' term and the columns'.
        symmetric: Columns have losses too; M = N, positives are on the diagonal.
        same_rows: Query and key are the same rows: a pair has its row's term and its column's.
        dots: <q_i, positive_i>, [N], float32, where positives are no keys.

    Returns: Losses, and terms [5, N], or [10, N] of rows and columns, for `RowLosses.of`.
    """
    n, m = scores.shape
    kernel = _contrast_small_batch_kernel
    tile = tile_for("contrast_small_batch", arch_of(kernel, scores), 4, "any")
    losses = scores.new_empty(n)
    terms = scores.new_empty(10 if symmetric else 5, n)
    positive = pairs.positive
    with torch.cuda.device_of(scores):
        launch(
            kernel,
            (cdiv(n, tile.block_n) * cdiv(m, tile.block_n),),
            {
                "scores_ptr": scores,
                "temperature_ptr": pairs.temperature,
                "positive_ptr": positive if isinstance(positive, torch.Tensor) else None,
                "query_label_ptr": None if pairs.labels is None else pairs.labels[0],
                "key_label_ptr": None if pairs.labels is None else pairs.labels[1],
                "dots_ptr": dots,
                "losses_ptr": losses,
                "terms_ptr": terms,
                "weights_ptr": weights[0],
                "second_ptr": weights[1],
            },
            {
                "N": n,
                "M": m,
                "regular": m - pairs.extra,
                "FORM": form,
                "SYMMETRIC": symmetric,
                "SAME_ROWS": same_rows,
                "POSITIVE": "index" if pairs.indexed else positive or "none",
                "EXCLUDE_SELF": pairs.exclude_self,
                "BLOCK": tile.block_n,
            },
            {"num_warps": tile.num_warps, "enable_fp_fusion": True},
        )
    return losses, terms


__all__ = ["contrast_small_batch_fwd"]

"""Row losses and gradient weights from the statistics of scores, in one pass.

    x: the positive's score, in units of log 2; row_max, exp_sum: merged from partial results

    softmax    loss = log(Z) + (row_max - x) log 2     scale = 1 / Z,  Z = exp_sum + 2^(x - row_max)
    decoupled  loss = log(exp_sum) + (row_max - x) log 2, 0 without negatives    scale = 1 / exp_sum
    sigmoid    loss = exp_sum + log(1 + 2^-x)                                    scale = 1
    positive_weight = exp_sum * scale (sigmoid: 1 / (1 + 2^x))

dL/ds of a negative is scale * 2^(score - row_max), dL/ds of the positive is -positive_weight; both
are multiplied by the upstream gradient of the row. A symmetric contrast has both directions in one
launch, and the mean of their losses. Where query and key are the same rows, the partial results of
rows (pairs above the diagonal) and of columns belong to the same rows.

Numerics contract: float32. For the softmax form either the positive has the largest score, and the
loss is log(1 + exp_sum), or exp_sum >= 1/2 and both terms are positive: a loss near 0 keeps its
relative accuracy. Logarithms to 2e-7, powers as in `contrast_common.py`. NaN passes through. An
index out of range gives NaN: the host does not check it, as that would wait for the device.
Deterministic: no atomics. Cost: every partial result read once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._launch import launch
from mmcl_fast.kernels._tiles import cdiv
from mmcl_fast.kernels.contrast_common import FLOOR, LOG2, log1p, sigmoid, softplus
from mmcl_fast.kernels.contrast_statistics import Partial, merge

_LN2 = tl.constexpr(LOG2)
_BLOCK_P, _BLOCK_N = 32, 64  # partial results and rows that a program takes at a time


class RowTerms(NamedTuple):
    """Statistics and weights of one direction's queries; float32, [N] each."""

    positive_score: torch.Tensor
    max_score: torch.Tensor
    exp_sum: torch.Tensor
    scale: torch.Tensor
    positive_weight: torch.Tensor

    @property
    def saved(self) -> tuple[torch.Tensor, ...]:
        """The statistics that `restored` takes."""
        return self.positive_score, self.max_score, self.exp_sum


class RowLosses(NamedTuple):
    """Losses [N], and the terms of rows and, in a symmetric contrast, of columns."""

    losses: torch.Tensor
    rows: RowTerms
    columns: RowTerms | None

    @classmethod
    def of(cls, losses: torch.Tensor, terms: torch.Tensor) -> RowLosses:
        """From losses [N], and terms [5, N] of rows or [10, N] of rows and columns."""
        split = terms.unbind()
        return cls(losses, RowTerms(*split[:5]), RowTerms(*split[5:]) if len(split) > 5 else None)


@triton.jit
def row_terms(positive, row_max, exp_sum, upstream, FORM: tl.constexpr):
    """(loss, row_max, exp_sum, scale, positive_weight) of one direction's rows."""
    if FORM == "sigmoid":
        loss = exp_sum + softplus(-positive)
        scale = upstream
        positive_weight = sigmoid(-positive) * upstream
    elif FORM == "softmax":
        new_max = tl.maximum(row_max, positive)
        exp_sum *= tl.exp2(row_max - new_max)
        row_max = new_max
        positive_exp = tl.exp2(positive - row_max)
        # The larger of the two is about 1: log1p of the rest keeps the digits of a small loss.
        rest = tl.where(positive < row_max, (exp_sum - 1.0) + positive_exp, exp_sum)
        loss = log1p(rest) + (row_max - positive) * _LN2
        scale = tl.div_rn(upstream, exp_sum + positive_exp)
        positive_weight = exp_sum * scale
    else:
        has_negatives = exp_sum != 0.0  # true of NaN
        safe = tl.where(has_negatives, exp_sum, 1.0)
        loss = tl.where(has_negatives, log1p(safe - 1.0) + (row_max - positive) * _LN2, 0.0)
        scale = tl.where(has_negatives, tl.div_rn(upstream, safe), 0.0)
        positive_weight = (
            exp_sum * scale
        )  # not `upstream`: a NaN among the negatives must reach the gradient
    return loss, row_max, exp_sum, scale, positive_weight


@triton.jit
def store_terms(terms_ptr, positive, terms, offs_n, mask_n, N):
    """Stores the terms of one direction, five rows of [N]."""
    _, row_max, exp_sum, scale, positive_weight = terms
    at = terms_ptr + offs_n
    row = N.to(tl.int64)
    tl.store(at, positive, mask=mask_n)
    tl.store(at + row, row_max, mask=mask_n)
    tl.store(at + 2 * row, exp_sum, mask=mask_n)
    tl.store(at + 3 * row, scale, mask=mask_n)
    tl.store(at + 4 * row, positive_weight, mask=mask_n)


@triton.jit(do_not_specialize=["P", "Q", "F", "N", "M"])
def _contrast_row_losses_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    max_ptr,
    exp_sum_ptr,
    positive_score_ptr,
    column_max_ptr,
    column_sum_ptr,
    index_ptr,
    upstream_ptr,
    losses_ptr,
    terms_ptr,
    P: tl.int32,
    Q: tl.int32,
    F: tl.int32,
    N: tl.int32,
    M: tl.int32,
    FORM: tl.constexpr,
    SAME_ROWS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One program: BLOCK_N rows. P, Q, F: partial results of rows, columns and positives."""
    offs_n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    mask_n = offs_n < N
    at_score, in_range = offs_n, mask_n
    if index_ptr is not None:
        index = tl.load(index_ptr + offs_n, mask=mask_n, other=0)
        in_range = mask_n & (index >= 0) & (index < M)
        if SAME_ROWS:  # the index is its own inverse; scores are of pairs above the diagonal
            at_score = tl.where(index > offs_n, offs_n, index)
    positive = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, F, BLOCK_P):
        offs_p = start + tl.arange(0, BLOCK_P)
        at = offs_p.to(tl.int64)[:, None] * N + at_score[None, :]
        mask = (offs_p < F)[:, None] & in_range[None, :]
        positive += tl.sum(tl.load(positive_score_ptr + at, mask=mask, other=0.0), 0)
    upstream = tl.full([BLOCK_N], 1.0, tl.float32)
    if upstream_ptr is not None:
        upstream = tl.load(upstream_ptr + offs_n, mask=mask_n, other=0.0)
    row_max = tl.full([BLOCK_N], FLOOR, tl.float32)
    exp_sum = tl.zeros([BLOCK_N], tl.float32)
    if index_ptr is not None:  # in both, as some terms of each form depend on one alone
        positive = tl.where(in_range, positive, float("nan"))
        exp_sum = tl.where(in_range, exp_sum, float("nan"))
    rows = merge(row_max, exp_sum, max_ptr, exp_sum_ptr, offs_n, mask_n, P, N, BLOCK_P)
    if SAME_ROWS:
        rows = merge(
            rows[0], rows[1], column_max_ptr, column_sum_ptr, offs_n, mask_n, Q, N, BLOCK_P
        )
    terms = row_terms(positive, rows[0], rows[1], upstream, FORM)
    store_terms(terms_ptr, positive, terms, offs_n, mask_n, N)
    loss = terms[0]
    if column_max_ptr is not None and not SAME_ROWS:
        # Positives are on the diagonal: both directions have the same positive score.
        row_max, exp_sum = merge(
            row_max, exp_sum, column_max_ptr, column_sum_ptr, offs_n, mask_n, Q, N, BLOCK_P
        )
        column_terms = row_terms(positive, row_max, exp_sum, upstream, FORM)
        store_terms(terms_ptr + 5 * N.to(tl.int64), positive, column_terms, offs_n, mask_n, N)
        loss = (loss + column_terms[0]) * 0.5
    tl.store(losses_ptr + offs_n, loss, mask=mask_n)


def contrast_row_losses_fwd(
    rows: Partial,
    columns: Partial | None,
    form: str,
    *,
    same_rows: bool = False,
    index: torch.Tensor | None = None,
    keys: int = 0,
    upstream: torch.Tensor | None = None,
) -> RowLosses:
    """Losses and terms of all rows.

    Args:
        rows: [P, N] each, contiguous; `positive_score` [F, N] adds up to the positives' scores. For
            the sigmoid form all entries of `max_score` are equal.
        columns: [Q, N] each, or None.
        form: "softmax" | "decoupled" | "sigmoid".
        same_rows: `columns` are further partial results of the rows.
        index: [N], the key that is the positive of each row, or None; with `same_rows` its own
            inverse.
        keys: Number of keys. A row whose index is out of range gets NaN.
        upstream: [N], weights of the rows' terms; None: 1. The losses are not weighted.
    """
    assert rows.positive_score is not None
    n = rows.max_score.shape[1]
    sides = 1 if columns is None or same_rows else 2
    losses = rows.max_score.new_empty(n)
    terms = rows.max_score.new_empty(sides * 5, n)
    if n:
        with torch.cuda.device_of(losses):
            launch(
                _contrast_row_losses_kernel,
                (cdiv(n, _BLOCK_N),),
                {
                    "max_ptr": rows.max_score,
                    "exp_sum_ptr": rows.exp_sum,
                    "positive_score_ptr": rows.positive_score,
                    "column_max_ptr": None if columns is None else columns.max_score,
                    "column_sum_ptr": None if columns is None else columns.exp_sum,
                    "index_ptr": index,
                    "upstream_ptr": upstream,
                    "losses_ptr": losses,
                    "terms_ptr": terms,
                },
                {
                    "P": rows.max_score.shape[0],
                    "Q": 0 if columns is None else columns.max_score.shape[0],
                    "F": rows.positive_score.shape[0],
                    "N": n,
                    "M": keys,
                    "FORM": form,
                    "SAME_ROWS": same_rows,
                    "BLOCK_P": _BLOCK_P,
                    "BLOCK_N": _BLOCK_N,
                },
                # Sums are rounded before their use, so `restored` gives the same bits.
                {"num_warps": 4, "enable_fp_fusion": False},
            )
    return RowLosses.of(losses, terms)


def restored(statistics: tuple[torch.Tensor, ...], form: str, upstream: torch.Tensor) -> RowLosses:
    """Losses and terms under other weights, from `RowTerms.saved` of one or two directions."""
    positive, row_max, exp_sum, *saved = (x[None] for x in statistics)
    columns = Partial(saved[1], saved[2]) if saved else None
    return contrast_row_losses_fwd(
        Partial(row_max, exp_sum, positive), columns, form, upstream=upstream
    )


__all__ = ["RowLosses", "RowTerms", "contrast_row_losses_fwd", "restored", "row_terms"]
__all__ += ["store_terms"]

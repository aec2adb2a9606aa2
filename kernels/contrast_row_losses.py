"""Partial results of scores become losses and weights: all that is one number a row, in one pass.

    top, total: merged from partial results       x: the positive's score, in units of log 2
    softmax    loss = log(total + 2^(x - top)) + (top - x) log 2     scale = 1 / (the former sum)
    decoupled  loss = log(total) + (top - x) log 2, 0 without negatives    scale = 1 / total
    sigmoid    loss = total + log(1 + 2^-x)                          scale = 1
    pull = total * scale (sigmoid: 1 / (1 + 2^x))

`scale` is what 2^(score - top) is multiplied by to be dL/ds of a negative, `pull` is -dL/ds of the
positive; both times an upstream weight of the row. A symmetric contrast has both directions in one
launch, and the mean of their losses; of an own contrast what rows met above the diagonal and what
columns met are partial results of the same rows.

Numerics contract: float32. For the softmax form either the positive leads, and the loss is
log(1 + total), or total >= 1/2 and both terms are positive: a loss near 0 keeps its relative
accuracy. Logarithms to 2e-7, powers as in `contrast_common.py`. NaN passes through. A positive's
index that is no key's gives NaN: on a device nobody has looked at it before.
Deterministic: no atomics. Cost: every partial result read once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import cdiv
from mmcl_fast.kernels.contrast_common import FLOOR, LOG2, log1p, sigmoid, softplus
from mmcl_fast.kernels.contrast_statistics import Partial, merge

_LN2 = tl.constexpr(LOG2)
_BLOCK_P, _BLOCK_N = 32, 64  # partial results and rows that a program takes at a time


class Terms(NamedTuple):
    """One direction's queries: statistics, and the weights they give; float32, [N] each."""

    positive: torch.Tensor
    top: torch.Tensor
    total: torch.Tensor
    scale: torch.Tensor  # of 2^(score - top)
    pull: torch.Tensor

    @property
    def saved(self) -> tuple[torch.Tensor, ...]:
        """What `restored` takes."""
        return self.positive, self.top, self.total


class Settled(NamedTuple):
    """Losses [N], and the terms of rows and, in a symmetric contrast, of columns."""

    losses: torch.Tensor
    rows: Terms
    columns: Terms | None


@triton.jit
def _direction(  # noqa: PLR0913  (inlined: no API)
    positive, top, total, upstream, terms_ptr, offs_n, mask_n, N, FORM: tl.constexpr
):
    """Losses of one direction; stores its terms, five rows of [N]."""
    if FORM == "sigmoid":
        loss = total + softplus(-positive)
        scale = upstream
        pull = sigmoid(-positive) * upstream
    elif FORM == "softmax":
        raised = tl.maximum(top, positive)
        total *= tl.exp2(top - raised)
        top = raised
        own = tl.exp2(positive - top)
        # Of the two the larger is about 1: what is added to it keeps its digits.
        rest = tl.where(positive < top, (total - 1.0) + own, total)
        loss = log1p(rest) + (top - positive) * _LN2
        scale = tl.div_rn(upstream, total + own)
        pull = total * scale
    else:
        found = total != 0.0  # masked rather than divided: NaN is found
        safe = tl.where(found, total, 1.0)
        loss = tl.where(found, log1p(safe - 1.0) + (top - positive) * _LN2, 0.0)
        scale = tl.where(found, tl.div_rn(upstream, safe), 0.0)
        pull = total * scale  # no constant: a NaN among the negatives must reach the gradient
    at = terms_ptr + offs_n
    row = N.to(tl.int64)
    tl.store(at, positive, mask=mask_n)
    tl.store(at + row, top, mask=mask_n)
    tl.store(at + 2 * row, total, mask=mask_n)
    tl.store(at + 3 * row, scale, mask=mask_n)
    tl.store(at + 4 * row, pull, mask=mask_n)
    return loss


@triton.jit(do_not_specialize=["P", "Q", "F", "N", "M"])
def _contrast_settle_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    top_ptr,
    total_ptr,
    found_ptr,
    other_top_ptr,
    other_total_ptr,
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
    OWN: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One program: BLOCK_N rows. P, Q, F: partial results of rows, of columns, of positives."""
    offs_n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    mask_n = offs_n < N
    seen, there = offs_n, mask_n
    if index_ptr is not None:
        index = tl.load(index_ptr + offs_n, mask=mask_n, other=0)
        there = mask_n & (index >= 0) & (index < M)
        if OWN:  # its own inverse: the score stands where it is above
            seen = tl.where(index > offs_n, offs_n, index)
    positive = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, F, BLOCK_P):
        offs_p = start + tl.arange(0, BLOCK_P)
        at = offs_p.to(tl.int64)[:, None] * N + seen[None, :]
        mask = (offs_p < F)[:, None] & there[None, :]
        positive += tl.sum(tl.load(found_ptr + at, mask=mask, other=0.0), 0)
    upstream = tl.full([BLOCK_N], 1.0, tl.float32)
    if upstream_ptr is not None:
        upstream = tl.load(upstream_ptr + offs_n, mask=mask_n, other=0.0)
    top = tl.full([BLOCK_N], FLOOR, tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    if index_ptr is not None:  # both, as no form's loss, scale and pull take the same one
        positive = tl.where(there, positive, float("nan"))
        total = tl.where(there, total, float("nan"))
    rows = merge(top, total, top_ptr, total_ptr, offs_n, mask_n, P, N, BLOCK_P)
    if OWN:
        rows = merge(
            rows[0], rows[1], other_top_ptr, other_total_ptr, offs_n, mask_n, Q, N, BLOCK_P
        )
    loss = _direction(positive, rows[0], rows[1], upstream, terms_ptr, offs_n, mask_n, N, FORM)
    if other_top_ptr is not None and not OWN:
        # Positives are on the diagonal: one score is both directions' positive.
        top, total = merge(
            top, total, other_top_ptr, other_total_ptr, offs_n, mask_n, Q, N, BLOCK_P
        )
        terms_ptr += 5 * N.to(tl.int64)
        other = _direction(positive, top, total, upstream, terms_ptr, offs_n, mask_n, N, FORM)
        loss = (loss + other) * 0.5
    tl.store(losses_ptr + offs_n, loss, mask=mask_n)


def contrast_settle_fwd(
    rows: Partial,
    columns: Partial | None,
    form: str,
    *,
    own: bool = False,
    index: torch.Tensor | None = None,
    keys: int = 0,
    upstream: torch.Tensor | None = None,
) -> Settled:
    """Losses and terms of all rows.

    Args:
        rows: [P, N] each, contiguous; `found` [F, N] adds up to the positives' scores. Tops of
            the sigmoid form are all the same.
        columns: [Q, N] each, or None.
        form: "softmax" | "decoupled" | "sigmoid".
        own: `columns` are further partial results of the rows.
        index: [N], which key is a row's positive, where that is given row by row; with `own`
            they are each other's.
        keys: How many there are: rows whose index is out of range have NaN.
        upstream: [N], weights of the rows' terms; None: 1. The losses are not weighted.
    """
    assert rows.found is not None
    n = rows.top.shape[1]
    sides = 1 if columns is None or own else 2
    losses = rows.top.new_empty(n)
    terms = rows.top.new_empty(sides * 5, n)
    if n:
        with torch.cuda.device_of(losses):
            _contrast_settle_kernel[(cdiv(n, _BLOCK_N),)](
                top_ptr=rows.top,
                total_ptr=rows.total,
                found_ptr=rows.found,
                other_top_ptr=None if columns is None else columns.top,
                other_total_ptr=None if columns is None else columns.total,
                index_ptr=index,
                upstream_ptr=upstream,
                losses_ptr=losses,
                terms_ptr=terms,
                P=rows.top.shape[0],
                Q=0 if columns is None else columns.top.shape[0],
                F=rows.found.shape[0],
                N=n,
                M=keys,
                FORM=form,
                OWN=own,
                BLOCK_P=_BLOCK_P,
                BLOCK_N=_BLOCK_N,
                num_warps=4,
                # A total is rounded before anything is taken from it: what is saved for a later
                # pass gives the same bits again.
                enable_fp_fusion=False,
            )
    found = terms.unbind()
    return Settled(losses, Terms(*found[:5]), Terms(*found[5:]) if sides == 2 else None)


def restored(statistics: tuple[torch.Tensor, ...], form: str, upstream: torch.Tensor) -> Settled:
    """Terms with other weights, from one or two directions' `saved`."""
    positive, top, total, *others = (x[None] for x in statistics)
    columns = Partial(others[1], others[2]) if others else None
    return contrast_settle_fwd(Partial(top, total, positive), columns, form, upstream=upstream)


__all__ = ["Settled", "Terms", "contrast_settle_fwd", "restored"]

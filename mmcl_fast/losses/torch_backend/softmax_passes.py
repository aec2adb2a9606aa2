"""Elementwise passes over a block of scores, in units of log 2; tops and totals as they go.

Float32 on a CPU takes one native sweep of `csrc/core/softmax`; everything else takes torch's
operations. A masked score is `masked(dtype)`, whose power of two is 0. Terms below 2^-100 (float64:
2^-960) of the largest are 0: a matrix product with subnormal factors is slower by two
orders of magnitude. Powers of two, because `torch.exp` is slow where its result underflows and
`torch.exp2` equally fast everywhere. `python -m bench.cpu.choices` times both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmcl_fast import _native

LOG2 = math.log(2.0)
_TINY = {torch.float32: 2.0**-100, torch.float64: 2.0**-960}


def masked(dtype: torch.dtype) -> float:
    """The score of a pair that is no negative."""
    # Finite, and so is twice it; 2 to the power of anything near it is 0.
    return torch.finfo(dtype).min / 2


def softmax_rows(scores: Tensor, top: Tensor, out: Tensor | None = None) -> Tensor:
    """`out` = 2^(scores - top) after raising `top` [c] to each row's maximum; returns row sums.

    `out` may be `scores`; None: the sums alone are wanted.
    """
    if _is_native(scores):
        total = torch.empty_like(top)
        terms = None if out is None else out.numpy()
        arrays = scores.numpy(), terms, top.numpy(), total.numpy()
        _native.softmax_rows(*arrays, threads=torch.get_num_threads())
        return total
    if scores.shape[1]:
        torch.maximum(top, scores.amax(dim=1), out=top)
    return _terms(scores, top[:, None], out).sum(dim=1)


def softmax_columns(scores: Tensor, top: Tensor, out: Tensor | None = None) -> Tensor:
    """The same along columns, `top` [M]; returns column sums."""
    if _is_native(scores):
        total = torch.empty_like(top)
        terms = None if out is None else out.numpy()
        arrays = scores.numpy(), terms, top.numpy(), total.numpy()
        _native.softmax_columns(*arrays, threads=torch.get_num_threads())
        return total
    if len(scores):
        torch.maximum(top, scores.amax(dim=0), out=top)
    return _terms(scores, top, out).sum(dim=0)


def softmax_both(scores: Tensor, row_top: Tensor, column_top: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column sums of what the two functions above would write, and the tops raised."""
    if not _is_native(scores):
        return softmax_rows(scores, row_top), softmax_columns(scores, column_top)
    totals = torch.empty_like(row_top), torch.empty_like(column_top)
    rows, columns = (x.numpy() for x in totals)
    arrays = scores.numpy(), row_top.numpy(), rows, column_top.numpy(), columns
    _native.softmax_both(*arrays, threads=torch.get_num_threads())
    return totals


def softmax_weights(
    scores: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor] | None
) -> None:
    """In place: 2^(s - top_i) * scale_i + 2^(s - top_j) * scale_j from (top, scale) of each."""
    if _is_native(scores):
        own = (x.numpy() for x in rows)
        other = (None, None) if columns is None else (x.numpy() for x in columns)
        _native.softmax_weights(scores.numpy(), *own, *other, threads=torch.get_num_threads())
        return
    weights = _terms(scores, rows[0][:, None], None).mul_(rows[1][:, None])
    if columns is not None:
        weights.addcmul_(_terms(scores, columns[0], scores), columns[1])
    scores.copy_(weights)


def softplus_rows(scores: Tensor) -> Tensor:
    """In place: 1 / (1 + e^-x) for x = scores * log 2; returns row sums of log(1 + e^x)."""
    if _is_native(scores):
        total = scores.new_empty(len(scores))
        _native.softplus_rows(scores.numpy(), total.numpy(), threads=torch.get_num_threads())
        return total
    x = scores.mul_(LOG2)
    decay = torch.exp2(x.abs().div_(-LOG2))
    totals = (x.clamp(min=0) + torch.log1p(decay)).sum(dim=1)
    # 1 / (1 + e^-x) = e^min(x, 0) / (1 + e^-|x|)
    scores.copy_(torch.where(x < 0, decay, 1.0).div_(decay.add_(1.0)))
    torch.threshold_(scores, _TINY[scores.dtype], 0.0)
    return totals


def _is_native(scores: Tensor) -> bool:
    return scores.dtype == torch.float32 and scores.device.type == "cpu"


def _terms(scores: Tensor, top: Tensor, out: Tensor | None) -> Tensor:
    out = torch.sub(scores, top, out=out).exp2_()
    return torch.threshold_(out, _TINY[out.dtype], 0.0)


__all__ = [
    "LOG2",
    "masked",
    "softmax_both",
    "softmax_columns",
    "softmax_rows",
    "softmax_weights",
    "softplus_rows",
]

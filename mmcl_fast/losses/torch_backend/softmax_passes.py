"""Elementwise passes over a block of scores in units of log 2, with maxima and sums.

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
    # It and twice it are finite; 2 to either power is 0.
    return torch.finfo(dtype).min / 2


def softmax_rows(scores: Tensor, maximum: Tensor, out: Tensor | None = None) -> Tensor:
    """Raise `maximum` [c] to the rows' maxima; `out` = 2^(scores - maximum); returns row sums.

    `out` may be `scores`; None: no result but the sums.
    """
    if _is_native(scores):
        sums = torch.empty_like(maximum)
        terms = None if out is None else out.numpy()
        arrays = scores.numpy(), terms, maximum.numpy(), sums.numpy()
        _native.softmax_rows(*arrays, threads=torch.get_num_threads())
        return sums
    if scores.shape[1]:
        torch.maximum(maximum, scores.amax(dim=1), out=maximum)
    return _terms(scores, maximum[:, None], out).sum(dim=1)


def softmax_columns(scores: Tensor, maximum: Tensor, out: Tensor | None = None) -> Tensor:
    """As `softmax_rows`, along columns; `maximum` [M]; returns column sums."""
    if _is_native(scores):
        sums = torch.empty_like(maximum)
        terms = None if out is None else out.numpy()
        arrays = scores.numpy(), terms, maximum.numpy(), sums.numpy()
        _native.softmax_columns(*arrays, threads=torch.get_num_threads())
        return sums
    if len(scores):
        torch.maximum(maximum, scores.amax(dim=0), out=maximum)
    return _terms(scores, maximum, out).sum(dim=0)


def softmax_both(scores: Tensor, row_max: Tensor, column_max: Tensor) -> tuple[Tensor, Tensor]:
    """Both of `softmax_rows` and `softmax_columns`, without `out`: row and column sums."""
    if not _is_native(scores):
        return softmax_rows(scores, row_max), softmax_columns(scores, column_max)
    sums = torch.empty_like(row_max), torch.empty_like(column_max)
    rows, columns = (x.numpy() for x in sums)
    arrays = scores.numpy(), row_max.numpy(), rows, column_max.numpy(), columns
    _native.softmax_both(*arrays, threads=torch.get_num_threads())
    return sums


def softmax_weights(
    scores: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor] | None
) -> None:
    """In place: 2^(s - max_i) * scale_i + 2^(s - max_j) * scale_j, from (maximum, scale) each."""
    if _is_native(scores):
        row_terms = (x.numpy() for x in rows)
        column_terms = (None, None) if columns is None else (x.numpy() for x in columns)
        _native.softmax_weights(
            scores.numpy(), *row_terms, *column_terms, threads=torch.get_num_threads()
        )
        return
    weights = _terms(scores, rows[0][:, None], None).mul_(rows[1][:, None])
    if columns is not None:
        weights.addcmul_(_terms(scores, columns[0], scores), columns[1])
    scores.copy_(weights)


def softplus_rows(scores: Tensor) -> Tensor:
    """In place: 1 / (1 + e^-x) for x = scores * log 2; returns row sums of log(1 + e^x)."""
    if _is_native(scores):
        sums = scores.new_empty(len(scores))
        _native.softplus_rows(scores.numpy(), sums.numpy(), threads=torch.get_num_threads())
        return sums
    x = scores.mul_(LOG2)
    decay = torch.exp2(x.abs().div_(-LOG2))
    sums = (x.clamp(min=0) + torch.log1p(decay)).sum(dim=1)
    # 1 / (1 + e^-x) = e^min(x, 0) / (1 + e^-|x|)
    scores.copy_(torch.where(x < 0, decay, 1.0).div_(decay.add_(1.0)))
    torch.threshold_(scores, _TINY[scores.dtype], 0.0)
    return sums


def _is_native(scores: Tensor) -> bool:
    return scores.dtype == torch.float32 and scores.device.type == "cpu"


def _terms(scores: Tensor, maximum: Tensor, out: Tensor | None) -> Tensor:
    out = torch.sub(scores, maximum, out=out).exp2_()
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

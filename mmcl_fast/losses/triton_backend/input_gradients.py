"""Gradients of the inputs, from the sums over negatives and what positives and others add."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_input_gradients import Pull, contrast_finish_bwd
from mmcl_fast.kernels.contrast_row_losses import Settled, Terms
from mmcl_fast.losses.contrast import Contrast, Gradients, Wanted
from mmcl_fast.losses.triton_backend.hard_negatives import hard_weights
from mmcl_fast.losses.triton_backend.problem import Sums, Work, row_dots

Factor = tuple[float, Tensor | None]  # of everything: a number, times a 0-d one on the device


def assembled(
    contrast: Contrast, work: Work, wanted: Wanted, sums: Sums, settled: Settled, factor: Factor
) -> Gradients:
    """Gradients of all that is wanted.

    Args:
        contrast: The problem.
        work: The same as the kernels see it.
        wanted: Inputs whose gradient is wanted.
        sums: Over negatives that are keys; what a wanted gradient takes is there. Overwritten.
        settled: Terms of the rows and, in a symmetric loss, of the columns.
        factor: What terms and sums are relative to.
    """
    rows, temperature = settled.rows, work.pairs.temperature
    query = dots = bias = None
    # A pair of own rows adds the same to the gradients of both its rows.
    share = 0.5 if work.own else 1.0
    if sums.query is not None:
        query, dots = contrast_finish_bwd(
            sums.query,
            work.query,
            _pull_of_queries(contrast, work, settled),
            temperature,
            factor,
            mixture=None if sums.query_tops is None else (sums.query_tops, rows),
            share=share,
            dots=wanted.temperature,
        )
    key, dots = _key_gradient(contrast, work, wanted, sums, settled, factor, dots)
    weights = None if contrast.hard is None else hard_weights(work, contrast.hard, rows)
    if contrast.hard is not None and weights is not None and query is not None:
        through = (weights[:, :, None] * contrast.hard).sum(dim=1) * _rate(work, factor)
        query += through
        if dots is not None:
            dots -= row_dots(work.query, through) / temperature
    if wanted.bias and sums.weights is not None:
        bias = sums.weights * share - rows.pull
        bias = (bias if weights is None else bias + weights.sum(dim=1)) * _whole(factor)
    return Gradients(
        query=query if wanted.query else None,
        key=key if wanted.key else None,
        positive_key=_positive_key_gradient(contrast, work, wanted, rows, factor),
        hard=_hard_gradient(contrast, work, wanted, weights, factor),
        temperature=dots if wanted.temperature else None,
        bias=bias,
    )


def _whole(factor: Factor) -> float | Tensor:
    return factor[0] if factor[1] is None else factor[1] * factor[0]


def _rate(work: Work, factor: Factor) -> Tensor:
    rate: Tensor = _whole(factor) / work.pairs.temperature
    return rate


def _pull_of_queries(contrast: Contrast, work: Work, settled: Settled) -> Pull:
    """What positives take from the query's gradient."""
    if contrast.positive_key is not None:
        return Pull(contrast.positive_key, (settled.rows.pull,))
    pulls: tuple[Tensor, ...] = (settled.rows.pull,)
    if settled.columns is not None and not contrast.stopped:
        pulls = (*pulls, settled.columns.pull)
    # Of own rows, row i is also the positive of its positive.
    share = 0.5 if work.own else 1.0
    return Pull(work.key, pulls, contrast.positive, mutual=work.own, share=share)


def _key_gradient(
    contrast: Contrast,
    work: Work,
    wanted: Wanted,
    sums: Sums,
    settled: Settled,
    factor: Factor,
    dots: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """That of the key, also where only the temperature's takes it, and what it makes of `dots`."""
    if sums.key is None:
        stopped = work.key.new_zeros(work.key.shape, dtype=torch.float32) if wanted.key else None
        return stopped, dots
    rows, columns = settled.rows, settled.columns
    parts, pull = sums.key, None
    if contrast.positive_key is None and contrast.positive is not None:
        whole = parts[0] if len(parts) == 1 else parts.sum(dim=0)
        taken = rows.pull[:, None] * work.query
        # One out of range would stop the device for good; what it takes is NaN, wherever it goes.
        at = contrast.positive.remainder(len(whole))
        # Unlike index_add_, this sorts on CUDA: queries that share a positive have one order.
        parts = whole.index_put_((at,), -taken, accumulate=True)[None]
    elif contrast.positive_key is None:
        of_columns = () if columns is None else (columns.pull,)
        pulls = of_columns if contrast.stopped else (rows.pull, *of_columns)
        pull = Pull(work.query, pulls)
    own_terms = contrast.stopped and columns is not None
    mixture = None
    if sums.key_tops is not None and columns is not None:
        mixture = sums.key_tops, columns
    key, more = contrast_finish_bwd(
        parts,
        work.key,
        pull,
        work.pairs.temperature,
        factor,
        mixture=mixture,
        dots=own_terms and dots is not None,
        before=dots if own_terms else None,
    )
    return key, dots if more is None else more


def _positive_key_gradient(
    contrast: Contrast, work: Work, wanted: Wanted, rows: Terms, factor: Factor
) -> Tensor | None:
    if not wanted.positive_key or contrast.positive_key is None:
        return None
    if contrast.stopped:
        return torch.zeros_like(contrast.positive_key, dtype=torch.float32)
    found: Tensor = (rows.pull * -_rate(work, factor))[:, None] * work.query.float()
    return found


def _hard_gradient(
    contrast: Contrast, work: Work, wanted: Wanted, weights: Tensor | None, factor: Factor
) -> Tensor | None:
    if not wanted.hard or weights is None:
        return None
    weights = torch.zeros_like(weights) if contrast.stopped else weights * _rate(work, factor)
    return weights[:, :, None] * work.query[:, None, :]


__all__ = ["Factor", "assembled"]

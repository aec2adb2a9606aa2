"""Contrasts of small batches: one product, one kernel for losses and weights, products with these.

At some hundred rows the host decides, not the GPU: the algorithms for any size take three launches
between the product of the scores and those of the gradients, this one takes one. Its kernel reads
all scores 2 M / block times, so its time grows with the third power of the batch. Of 512 x 512
scores a program reads 2 * 512 * 64 scores, 256 KiB, and 64 programs run at a time: at the 64 bytes
a cycle that L2 gives a multiprocessor of an H100 that is 4,096 cycles (2.3 us), by arithmetic; of
1,024 x 1,024 four times as many programs read twice as much each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_pair_gradients import contrast_pair_gradients_bwd
from mmcl_fast.kernels.contrast_row_losses import RowLosses
from mmcl_fast.kernels.contrast_small_batch import contrast_small_batch_fwd
from mmcl_fast.kernels.row_passes import row_dots_fwd
from mmcl_fast.losses.contrast import Contrast, Forward, Gradients, Requested
from mmcl_fast.losses.triton_backend.chunked import UNSHIFT, product
from mmcl_fast.losses.triton_backend.input_gradients import assembled
from mmcl_fast.losses.triton_backend.problem import KernelInputs, NegativeSums, dense

MOST_SCORES = 2**18  # 512 x 512
STORED_SCORES = 2**26  # 8,192 x 8,192: up to here a batch is typical, and its scores 256 MiB


def why_not(contrast: Contrast) -> str | None:
    """Why one launch cannot serve a contrast; None: it can."""
    n = contrast.rows
    m = n if contrast.key is None else contrast.key.shape[0]
    if not 0 < n * m <= MOST_SCORES:
        return f"expected 1 to {MOST_SCORES} scores, got {n} x {m}"
    if contrast.form == "sigmoid":
        return 'expected form "softmax" or "decoupled", got "sigmoid"'
    if contrast.hard is not None:
        return "expected no hard negatives, got some"
    return None


def stores_scores(inputs: KernelInputs) -> bool:
    """Whether a batch is typical: all its scores are in memory, in one chunk."""
    return 0 < len(inputs.query) * len(inputs.key) <= STORED_SCORES


def losses_and_gradients(contrast: Contrast, requested: Requested, factor: float) -> Forward:
    """Row losses, and the requested gradients of `factor` times the terms of each direction.

    Args:
        contrast: The problem, its directions as `contrastive` has them.
        requested: Inputs whose gradient is needed; one at least.
        factor: `weight` of `contrast_forward`, or half of it where two directions are added.

    Raises: ValueError: `why_not` has a reason.
    """
    if reason := why_not(contrast):
        raise ValueError(f"small batch: {reason}")
    inputs = KernelInputs.of(contrast)
    query, key = inputs.query, inputs.key
    scores = product(query, key.T)
    # Never the scores' own memory, which other programs may still read.
    weights = torch.empty_like(scores, dtype=query.dtype)
    second = torch.empty_like(weights) if contrast.symmetric and contrast.stopped else None
    given = contrast.positive_key
    losses, terms = contrast_small_batch_fwd(
        scores,
        inputs.pairs,
        contrast.form,
        (weights, second),
        symmetric=contrast.symmetric,
        same_rows=inputs.same_rows,
        dots=None if given is None else row_dots_fwd(query, dense(given)),
    )
    if is_pair(contrast, requested):
        sums = product(weights, key), product(weights.T, query)
        of_columns = terms[9] if contrast.symmetric else None
        dots = contrast_pair_gradients_bwd(
            sums, (query, key), (terms[4], of_columns), inputs.pairs.temperature, factor,
            back=UNSHIFT.get(query.dtype, 1.0), dots=requested.temperature,
        )  # fmt: skip
        return Forward(losses, Gradients(*sums, temperature=dots), ())
    found = _sums(contrast, inputs, requested, (weights, second))
    known = assembled(
        contrast, inputs, requested, found, RowLosses.of(losses, terms), (factor, None)
    )
    return Forward(losses, known, ())


def is_pair(contrast: Contrast, requested: Requested) -> bool:
    """Whether both sides have a gradient, and each pair of positives serves both."""
    if contrast.positive is not None or contrast.positive_key is not None:
        return False
    both = requested.query and requested.key and not requested.bias and contrast.key is not None
    return both and contrast.hard is None and not contrast.stopped


def pair_gradients(
    inputs: KernelInputs,
    requested: Requested,
    sums: NegativeSums,
    row_losses: RowLosses,
    factor: float,
) -> Gradients:
    """The gradients of a contrast that `is_pair`, in one launch; overwrites its sums.

    Args:
        inputs: The problem in the layout of the kernels.
        requested: Inputs whose gradient is needed.
        sums: Over negatives, of both sides and in one part.
        row_losses: Terms of the rows and, in a symmetric loss, of the columns.
        factor: Of terms and sums.
    """
    assert sums.query is not None
    assert sums.key is not None
    columns = row_losses.columns
    of_columns = None if columns is None else columns.positive_weight
    query, key = sums.query[0], sums.key[0]
    dots = contrast_pair_gradients_bwd(
        (query, key), (inputs.query, inputs.key), (row_losses.rows.positive_weight, of_columns),
        inputs.pairs.temperature, factor, dots=requested.temperature,
    )  # fmt: skip
    return Gradients(query, key, temperature=dots)


def _sums(
    contrast: Contrast,
    inputs: KernelInputs,
    requested: Requested,
    weights: tuple[Tensor, Tensor | None],
) -> NegativeSums:
    """The weighted sums that the requested gradients need."""
    back = UNSHIFT.get(inputs.query.dtype, 1.0)

    def summed(factors: Tensor, features: Tensor) -> Tensor:
        out = product(factors, features)
        return (out if back == 1.0 else out.mul_(back))[None]

    rows, columns = weights
    sums = NegativeSums()
    if requested.query or requested.temperature:
        sums = NegativeSums(summed(rows, inputs.key))
    if columns is not None and (requested.key or requested.temperature):
        sums = sums._replace(key=summed(columns.T, inputs.query))
    elif requested.key and not contrast.stopped:
        sums = sums._replace(key=summed(rows.T, inputs.query))
    return sums


__all__ = ["MOST_SCORES", "STORED_SCORES", "is_pair", "losses_and_gradients", "pair_gradients"]
__all__ += ["stores_scores", "why_not"]

"""Gradients of the inputs, from the sums over negatives, positives and hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_input_gradients import PositiveTerms, contrast_input_gradients_bwd
from mmcl_fast.kernels.contrast_row_losses import RowLosses, RowTerms
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested
from mmcl_fast.losses.triton_backend.hard_negatives import hard_weights
from mmcl_fast.losses.triton_backend.problem import KernelInputs, NegativeSums, row_dots

# Of all gradients: a number, and a 0-d tensor on the device that multiplies it.
Factor = tuple[float, Tensor | None]


def assembled(
    contrast: Contrast,
    inputs: KernelInputs,
    requested: Requested,
    sums: NegativeSums,
    row_losses: RowLosses,
    factor: Factor,
) -> Gradients:
    """The requested gradients.

    Args:
        contrast: The problem.
        inputs: The problem in the layout of the kernels.
        requested: Inputs whose gradient is needed.
        sums: Over negatives that are keys, as far as requested gradients need them. Overwritten.
        row_losses: Terms of the rows and, in a symmetric loss, of the columns.
        factor: Of terms and sums.
    """
    rows, temperature = row_losses.rows, inputs.pairs.temperature
    query = dots = bias = None
    # With the same rows on both sides, a pair adds the same to the gradients of both its rows.
    share = 0.5 if inputs.same_rows else 1.0
    if sums.query is not None:
        query, dots = contrast_input_gradients_bwd(
            sums.query,
            inputs.query,
            _positives_of_queries(contrast, inputs, row_losses),
            temperature,
            factor,
            unscaled=None if sums.query_max is None else (sums.query_max, rows),
            share=share,
            dots=requested.temperature,
        )
    key, dots = _key_gradient(contrast, inputs, requested, sums, row_losses, factor, dots)
    weights = None if contrast.hard is None else hard_weights(inputs, contrast, rows)
    if contrast.hard is not None and weights is not None and query is not None:
        hard_part = (weights[:, :, None] * contrast.hard).sum(dim=1) * _rate(inputs, factor)
        query += hard_part
        if dots is not None:
            dots -= row_dots(inputs.query, hard_part) / temperature
    if requested.bias and sums.weights is not None:
        bias = sums.weights * share - rows.positive_weight
        bias = (bias if weights is None else bias + weights.sum(dim=1)) * _whole(factor)
    return Gradients(
        query=query if requested.query else None,
        key=key if requested.key else None,
        positive_key=_positive_key_gradient(contrast, inputs, requested, rows, factor),
        hard=_hard_gradient(contrast, inputs, requested, weights, factor),
        temperature=dots if requested.temperature else None,
        bias=bias,
    )


def _whole(factor: Factor) -> float | Tensor:
    return factor[0] if factor[1] is None else factor[1] * factor[0]


def _rate(inputs: KernelInputs, factor: Factor) -> Tensor:
    rate: Tensor = _whole(factor) / inputs.pairs.temperature
    return rate


def _positives_of_queries(
    contrast: Contrast, inputs: KernelInputs, row_losses: RowLosses
) -> PositiveTerms:
    """The positives' part of the gradient of the query."""
    if contrast.positive_key is not None:
        return PositiveTerms(contrast.positive_key, (row_losses.rows.positive_weight,))
    weights: tuple[Tensor, ...] = (row_losses.rows.positive_weight,)
    if row_losses.columns is not None and not contrast.stopped:
        weights = (*weights, row_losses.columns.positive_weight)
    # With the same rows on both sides, row i is also the positive of its positive.
    share = 0.5 if inputs.same_rows else 1.0
    return PositiveTerms(
        inputs.key, weights, contrast.positive, mutual=inputs.same_rows, share=share
    )


def _key_gradient(
    contrast: Contrast,
    inputs: KernelInputs,
    requested: Requested,
    sums: NegativeSums,
    row_losses: RowLosses,
    factor: Factor,
    dots: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """(gradient of the key, `dots` plus its part), also where only the temperature needs it."""
    if sums.key is None:
        stopped = (
            inputs.key.new_zeros(inputs.key.shape, dtype=torch.float32) if requested.key else None
        )
        return stopped, dots
    rows, columns = row_losses.rows, row_losses.columns
    parts, positives = sums.key, None
    if contrast.positive_key is None and contrast.positive is not None:
        whole = parts[0] if len(parts) == 1 else parts.sum(dim=0)
        positive_part = rows.positive_weight[:, None] * inputs.query
        # An index out of range would be a fatal error of the device; its row is NaN anyway.
        at = contrast.positive.remainder(len(whole))
        # Sorted on CUDA, unlike index_add_: a fixed order of queries with the same positive.
        parts = whole.index_put_((at,), -positive_part, accumulate=True)[None]
    elif contrast.positive_key is None:
        of_columns = () if columns is None else (columns.positive_weight,)
        weights = of_columns if contrast.stopped else (rows.positive_weight, *of_columns)
        positives = PositiveTerms(inputs.query, weights)
    has_dots = contrast.stopped and columns is not None
    unscaled = None
    if sums.key_max is not None and columns is not None:
        unscaled = sums.key_max, columns
    key, key_dots = contrast_input_gradients_bwd(
        parts,
        inputs.key,
        positives,
        inputs.pairs.temperature,
        factor,
        unscaled=unscaled,
        dots=has_dots and dots is not None,
        initial_dots=dots if has_dots else None,
    )
    return key, dots if key_dots is None else key_dots


def _positive_key_gradient(
    contrast: Contrast, inputs: KernelInputs, requested: Requested, rows: RowTerms, factor: Factor
) -> Tensor | None:
    if not requested.positive_key or contrast.positive_key is None:
        return None
    if contrast.stopped:
        return torch.zeros_like(contrast.positive_key, dtype=torch.float32)
    gradient: Tensor = (rows.positive_weight * -_rate(inputs, factor))[
        :, None
    ] * inputs.query.float()
    return gradient


def _hard_gradient(
    contrast: Contrast,
    inputs: KernelInputs,
    requested: Requested,
    weights: Tensor | None,
    factor: Factor,
) -> Tensor | None:
    if not requested.hard or weights is None:
        return None
    weights = torch.zeros_like(weights) if contrast.stopped else weights * _rate(inputs, factor)
    return weights[:, :, None] * inputs.query[:, None, :]


__all__ = ["Factor", "assembled"]

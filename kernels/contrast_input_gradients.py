"""Gradients of features from weighted sums over negatives: adds parts, positives and factors.

    sum_i  = sum_p v_pi sums_pi        v = 1, or scale_i 2^(part_max_pi - max_i) for unscaled sums
    out_i  = rate * (sum_i - weight_i positive_i)                     rate = factor / temperature
    dots_i = -rate / temperature
             * (share <features_i, sum_i> - positive_share weight_i <features_i, positive_i>)

`positive` are the features of the positives, `weight` their positive weights (the sum over both
directions), and `dots` each row's part of the gradient of the temperature.

Numerics contract: float32. Deterministic: no atomics, partial sums in their order.
Cost: partial sums and two feature rows read once, one row of float32 written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._launch import launch
from mmcl_fast.kernels._tiles import cdiv
from mmcl_fast.kernels.contrast_row_losses import RowTerms

_BLOCK_N, _BLOCK_D = 16, 128


@dataclass(frozen=True)
class PositiveTerms:
    """The positives' part of the gradient of R rows.

    Attributes:
        features: Of the positives, [any, D], stride 1 along D.
        weights: Positive weights, one or two of [K], which are added; K <= R, later rows have no
            positive.
        index: [K], the row of `features` for each row; None: row i. Out of range: the gradient is
            NaN.
        mutual: Row i is also the positive of its positive.
        share: Factor of this part in `dots`.
    """

    features: torch.Tensor
    weights: tuple[torch.Tensor, ...]
    index: torch.Tensor | None = None
    mutual: bool = False
    share: float = 1.0


@triton.jit(do_not_specialize=["P", "R", "K", "S", "factor"])
def _contrast_input_gradients_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    sums_ptr,
    part_max_ptr,
    max_ptr,
    scale_ptr,
    features_ptr,
    positive_ptr,
    index_ptr,
    weight_ptr,
    second_weight_ptr,
    temperature_ptr,
    factor_ptr,
    initial_dots_ptr,
    out_ptr,
    dots_ptr,
    P: tl.int32,
    R: tl.int32,
    K: tl.int32,
    S: tl.int32,
    D: tl.int32,
    stride_features: tl.int64,
    stride_positive: tl.int64,
    factor: tl.float32,
    MUTUAL: tl.constexpr,
    SHARE: tl.constexpr,
    POSITIVE_SHARE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_N rows."""
    rows = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    mask_n = rows < R
    inverse_temperature = tl.div_rn(1.0, tl.load(temperature_ptr))
    rate = factor * inverse_temperature
    if factor_ptr is not None:
        rate *= tl.load(factor_ptr)
    weight = tl.zeros([BLOCK_N], tl.float32)
    at_positive = rows
    if positive_ptr is not None:
        has = rows < K
        weight = tl.load(weight_ptr + rows, mask=has, other=0.0)
        if index_ptr is not None:  # not checked on the host, which would wait for the device
            at_positive = tl.load(index_ptr + rows, mask=has, other=0)
            in_range = (at_positive >= 0) & (at_positive < S)
            weight = tl.where(in_range, weight, float("nan"))
            has &= in_range
        if second_weight_ptr is not None:
            weight += tl.load(second_weight_ptr + rows, mask=has, other=0.0)
        if MUTUAL:
            weight += tl.load(weight_ptr + at_positive, mask=has, other=0.0)
    dots = tl.zeros([BLOCK_N], tl.float32)
    for d in range(0, D, BLOCK_D):
        at_d = (d + tl.arange(0, BLOCK_D)).to(tl.int64)
        mask = mask_n[:, None] & (at_d < D)[None, :]
        weighted_sum = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        for p in range(P):
            part = R.to(tl.int64) * p + rows
            term = tl.load(sums_ptr + (part[:, None] * D + at_d[None, :]), mask=mask, other=0.0)
            if part_max_ptr is not None:
                exponent = tl.load(part_max_ptr + part, mask=mask_n, other=0.0)
                exponent -= tl.load(max_ptr + rows, mask=mask_n, other=0.0)
                scale = tl.load(scale_ptr + rows, mask=mask_n, other=0.0)
                term *= (tl.exp2(exponent) * scale)[:, None]
            weighted_sum += term
        positive = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        if positive_ptr is not None:
            at = at_positive[:, None] * stride_positive + at_d[None, :]
            positive = tl.load(positive_ptr + at, mask=mask & has[:, None], other=0.0)
            positive = positive.to(tl.float32) * weight[:, None]
        if dots_ptr is not None:
            at = rows[:, None] * stride_features + at_d[None, :]
            features = tl.load(features_ptr + at, mask=mask, other=0.0).to(tl.float32)
            dots += tl.sum(features * (weighted_sum * SHARE - positive * POSITIVE_SHARE), 1)
        tl.store(
            out_ptr + (rows[:, None] * D + at_d[None, :]),
            (weighted_sum - positive) * rate,
            mask=mask,
        )
    if dots_ptr is not None:
        dots *= -rate * inverse_temperature
        if initial_dots_ptr is not None:
            dots += tl.load(initial_dots_ptr + rows, mask=mask_n, other=0.0)
        tl.store(dots_ptr + rows, dots, mask=mask_n)


def contrast_input_gradients_bwd(  # noqa: PLR0913
    sums: torch.Tensor,
    features: torch.Tensor,
    positives: PositiveTerms | None,
    temperature: torch.Tensor,
    factor: tuple[float, torch.Tensor | None],
    *,
    unscaled: tuple[torch.Tensor, RowTerms] | None = None,
    share: float = 1.0,
    dots: bool = False,
    initial_dots: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradient of R rows of features, and their parts of the gradient of the temperature.

    Args:
        sums: [P, R, D], float32, contiguous; overwritten if P is 1.
        features: Of the rows, [R, D], stride 1 along D.
        positives: The positives' part, or None.
        temperature: 0-d, float32.
        factor: A number, and a 0-d float32 factor on the device or None.
        unscaled: Maxima [P, R] of the parts, and the rows' terms, where `sums` have weights
            2^(x - maximum).
        share: Factor of the sums in `dots`.
        dots: Return the rows' parts of the temperature's gradient as well.
        initial_dots: [R], added to `dots`.

    Returns: [R, D] and [R] or None, float32.
    """
    parts, r, d = sums.shape
    out = sums[0] if parts == 1 else sums.new_empty(r, d)
    row_dots = sums.new_empty(r) if dots else None
    if not (r and d):
        return out, None if row_dots is None else row_dots.zero_()
    tops, terms = (None, None) if unscaled is None else unscaled
    given = PositiveTerms(features, ()) if positives is None else positives
    weights = (*given.weights, None, None)
    with torch.cuda.device_of(sums):
        launch(
            _contrast_input_gradients_kernel,
            (cdiv(r, _BLOCK_N),),
            {
                "sums_ptr": sums,
                "part_max_ptr": tops,
                "max_ptr": None if terms is None else terms.max_score,
                "scale_ptr": None if terms is None else terms.scale,
                "features_ptr": features,
                "positive_ptr": None if positives is None else positives.features,
                "index_ptr": given.index,
                "weight_ptr": weights[0],
                "second_weight_ptr": weights[1],
                "temperature_ptr": temperature,
                "factor_ptr": factor[1],
                "initial_dots_ptr": initial_dots,
                "out_ptr": out,
                "dots_ptr": row_dots,
            },
            {
                "P": parts,
                "R": r,
                "K": 0 if positives is None else len(given.weights[0]),
                "S": len(given.features),
                "D": d,
                "stride_features": features.stride(0),
                "stride_positive": given.features.stride(0),
                "factor": factor[0],
                "MUTUAL": given.mutual,
                "SHARE": share,
                "POSITIVE_SHARE": given.share,
                "BLOCK_N": _BLOCK_N,
                "BLOCK_D": _BLOCK_D,
            },
            {"num_warps": 4, "enable_fp_fusion": True},
        )
    return out, row_dots


__all__ = ["PositiveTerms", "contrast_input_gradients_bwd"]

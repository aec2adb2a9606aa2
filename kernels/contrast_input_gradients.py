"""Sums over negatives become gradients: partial ones added, positives taken out, units put in.

    sum_i  = sum_p v_pi sums_pi         v = 1, or scale_i 2^(part_top_pi - top_i) of a mixture
    out_i  = rate * (sum_i - pull_i source_i)                        rate = factor / temperature
    dots_i = -rate / temperature * (share <own_i, sum_i> - pull_share pull_i <own_i, source_i>)

`source` are the positives' features, `pull` -dL/ds of theirs (added up over both directions), and
`dots` each row's part of the temperature's gradient.

Numerics contract: float32. Deterministic: no atomics, partial sums in their order.
Cost: partial sums and two feature rows read once, one row of float32 written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from mmcl_fast.kernels._tiles import cdiv
from mmcl_fast.kernels.contrast_row_losses import Terms

_BLOCK_N, _BLOCK_D = 16, 128


@dataclass(frozen=True)
class Pull:
    """What positives take from the rows.

    Attributes:
        source: Features, [any, D], stride 1 along D.
        pulls: One or two of [K], to be added up; K <= R, later rows have no positive.
        index: [K], which row of `source`; None: row i. Out of range: the gradient is NaN.
        mutual: Row i is also the positive of its positive.
        share: Of the part in `dots`.
    """

    source: torch.Tensor
    pulls: tuple[torch.Tensor, ...]
    index: torch.Tensor | None = None
    mutual: bool = False
    share: float = 1.0


@triton.jit(do_not_specialize=["P", "R", "K", "S", "factor"])
def _contrast_finish_kernel(  # noqa: PLR0913  (a kernel's parameters are no API)
    sums_ptr,
    part_top_ptr,
    top_ptr,
    scale_ptr,
    own_ptr,
    source_ptr,
    index_ptr,
    pull_ptr,
    more_ptr,
    temperature_ptr,
    factor_ptr,
    before_ptr,
    out_ptr,
    dots_ptr,
    P: tl.int32,
    R: tl.int32,
    K: tl.int32,
    S: tl.int32,
    D: tl.int32,
    stride_own: tl.int64,
    stride_source: tl.int64,
    factor: tl.float32,
    MUTUAL: tl.constexpr,
    SHARE: tl.constexpr,
    PULL_SHARE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_N rows."""
    rows = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    mask_n = rows < R
    cold = tl.div_rn(1.0, tl.load(temperature_ptr))
    rate = factor * cold
    if factor_ptr is not None:
        rate *= tl.load(factor_ptr)
    pull = tl.zeros([BLOCK_N], tl.float32)
    at_source = rows
    if source_ptr is not None:
        has = rows < K
        pull = tl.load(pull_ptr + rows, mask=has, other=0.0)
        if index_ptr is not None:  # on a device nobody has looked at it before
            at_source = tl.load(index_ptr + rows, mask=has, other=0)
            there = (at_source >= 0) & (at_source < S)
            pull = tl.where(there, pull, float("nan"))
            has &= there
        if more_ptr is not None:
            pull += tl.load(more_ptr + rows, mask=has, other=0.0)
        if MUTUAL:
            pull += tl.load(pull_ptr + at_source, mask=has, other=0.0)
    dots = tl.zeros([BLOCK_N], tl.float32)
    for d in range(0, D, BLOCK_D):
        at_d = (d + tl.arange(0, BLOCK_D)).to(tl.int64)
        mask = mask_n[:, None] & (at_d < D)[None, :]
        total = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        for p in range(P):
            part = R.to(tl.int64) * p + rows
            term = tl.load(sums_ptr + (part[:, None] * D + at_d[None, :]), mask=mask, other=0.0)
            if part_top_ptr is not None:
                lead = tl.load(part_top_ptr + part, mask=mask_n, other=0.0)
                lead -= tl.load(top_ptr + rows, mask=mask_n, other=0.0)
                scale = tl.load(scale_ptr + rows, mask=mask_n, other=0.0)
                term *= (tl.exp2(lead) * scale)[:, None]
            total += term
        taken = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        if source_ptr is not None:
            at = at_source[:, None] * stride_source + at_d[None, :]
            taken = tl.load(source_ptr + at, mask=mask & has[:, None], other=0.0)
            taken = taken.to(tl.float32) * pull[:, None]
        if dots_ptr is not None:
            at = rows[:, None] * stride_own + at_d[None, :]
            own = tl.load(own_ptr + at, mask=mask, other=0.0).to(tl.float32)
            dots += tl.sum(own * (total * SHARE - taken * PULL_SHARE), 1)
        tl.store(out_ptr + (rows[:, None] * D + at_d[None, :]), (total - taken) * rate, mask=mask)
    if dots_ptr is not None:
        dots *= -rate * cold
        if before_ptr is not None:
            dots += tl.load(before_ptr + rows, mask=mask_n, other=0.0)
        tl.store(dots_ptr + rows, dots, mask=mask_n)


def contrast_finish_bwd(  # noqa: PLR0913
    sums: torch.Tensor,
    own: torch.Tensor,
    pull: Pull | None,
    temperature: torch.Tensor,
    factor: tuple[float, torch.Tensor | None],
    *,
    mixture: tuple[torch.Tensor, Terms] | None = None,
    share: float = 1.0,
    dots: bool = False,
    before: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradient of R rows of features, and their parts of the temperature's.

    Args:
        sums: [P, R, D], float32, contiguous; overwritten if P is 1.
        own: The rows' features, [R, D], stride 1 along D.
        pull: What positives take, or None.
        temperature: 0-d, float32.
        factor: A number, and a further 0-d float32 one on the device or None.
        mixture: Tops [P, R] of the parts, and the rows' terms: `sums` still take their weights.
        share: Of the sums in `dots`.
        dots: Whether they are wanted.
        before: [R], added to `dots`.

    Returns: [R, D] and [R] or None, float32.
    """
    parts, r, d = sums.shape
    out = sums[0] if parts == 1 else sums.new_empty(r, d)
    found = sums.new_empty(r) if dots else None
    if not (r and d):
        return out, found.zero_() if found is not None else None
    tops, terms = (None, None) if mixture is None else mixture
    given = Pull(own, ()) if pull is None else pull
    pulls = (*given.pulls, None, None)
    with torch.cuda.device_of(sums):
        _contrast_finish_kernel[(cdiv(r, _BLOCK_N),)](
            sums_ptr=sums,
            part_top_ptr=tops,
            top_ptr=None if terms is None else terms.top,
            scale_ptr=None if terms is None else terms.scale,
            own_ptr=own,
            source_ptr=None if pull is None else pull.source,
            index_ptr=given.index,
            pull_ptr=pulls[0],
            more_ptr=pulls[1],
            temperature_ptr=temperature,
            factor_ptr=factor[1],
            before_ptr=before,
            out_ptr=out,
            dots_ptr=found,
            P=parts,
            R=r,
            K=0 if pull is None else len(given.pulls[0]),
            S=len(given.source),
            D=d,
            stride_own=own.stride(0),
            stride_source=given.source.stride(0),
            factor=factor[0],
            MUTUAL=given.mutual,
            SHARE=share,
            PULL_SHARE=given.share,
            BLOCK_N=_BLOCK_N,
            BLOCK_D=_BLOCK_D,
            num_warps=4,
            enable_fp_fusion=True,
        )
    return out, found


__all__ = ["Pull", "contrast_finish_bwd"]

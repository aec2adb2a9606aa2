"""The paper's losses over two label halves on a GPU: products in memory, kernels between them.

What `paper_loss.label_halves` computes, with features of 16 or 32 bits. A chunk of rows of scores
is one product; one kernel reads it for both sides' maxima and sums, another makes it into the
weights of both mixtures, which are products again. Rows have met all their negatives after their
chunk; columns keep a running mixture, which is rescaled whenever a column's largest score rises.

Numerics: scores, sums and mixtures float32; weights, within 0..1 before they are divided by their
sum, are rounded to the features' dtype. float32 products are torch's, IEEE unless it was told
otherwise. Deterministic: the chunks depend on sizes alone.
Cost: `paper_loss.label_halves`; memory: scores and both weights of a chunk, 8 or 12 bytes for each
of `WORKSPACE` scores, or of those of `MIN_ROWS` rows where they are more (beyond 262,144 keys).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.engines.paper_loss.label_halves import Arithmetic, Half
from mmcl_fast.kernels.row_passes import row_dots_fwd, row_gradients_fwd
from mmcl_fast.kernels.two_sided_softmax import SoftmaxSums, two_sided_bwd, two_sided_fwd
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics
from mmcl_fast.losses.torch_backend.softmax_passes import LOG2
from mmcl_fast.losses.triton_backend.chunked import MIN_ROWS, add_product, padded, product

WORKSPACE = 2**28  # scores of a chunk: 1 GiB, and as much again for the weights


def meet(left: Half, right: Half, scale: float) -> None:
    """See `Arithmetic.meet`."""
    factor = scale / LOG2
    rows, columns = (
        RowStatistics.start("softmax", half.matched * factor) for half in (left, right)
    )
    for side in (rows, columns):
        side.include_positive()
    count, held = len(left.features), len(right.features)
    keys = padded(right.features)  # rows of scores are whole vectors, as quick products want them
    gradient = left.pull is not None
    mixture = keys.new_zeros(keys.shape, dtype=torch.float32) if gradient else None
    if left.pull is not None and not held:
        left.pull.zero_()
    size = max(MIN_ROWS, WORKSPACE // max(held, 1))
    for start in range(0, count if held else 0, size):
        part = slice(start, min(start + size, count))
        own = left.features[part]
        scores = product(own, keys.T)
        found, others = two_sided_fwd(scores, held, factor, columns=True)
        assert others is not None
        _merge(rows, part, found)
        shrink = _merge(columns, slice(None), others)
        if left.pull is None or mixture is None:
            continue
        of_rows = torch.empty_like(scores, dtype=own.dtype)
        of_columns = scores if own.dtype == scores.dtype else torch.empty_like(of_rows)
        two_sided_bwd(
            scores, held, factor, (rows.max_score[part], columns.max_score), (of_rows, of_columns)
        )
        product(of_rows, keys, out=left.pull[part])
        if start:
            mixture[:held].mul_(shrink[:, None])
        add_product(mixture, of_columns.T, own)
    for half, side, mixed in ((left, rows, left.pull), (right, columns, mixture)):
        half.finish(side)
        if half.pull is not None and mixed is not None:
            row_gradients_fwd(mixed, half.positive, side.scale(), half.miss, out=half.pull)


def _merge(side: RowStatistics, part: slice, found: SoftmaxSums) -> Tensor:
    top = torch.maximum(side.max_score[part], found.max_score)
    return side.merge(part, top, found.exp_sum * torch.exp2(found.max_score - top))


TRITON = Arithmetic(dots=row_dots_fwd, meet=meet)

__all__ = ["TRITON", "meet"]

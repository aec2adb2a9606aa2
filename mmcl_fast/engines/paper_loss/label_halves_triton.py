"""`paper_loss.label_halves` on a GPU: library products with Triton kernels between them.

Features have 16 or 32 bits. A chunk of rows of scores is one product. One kernel computes the
maxima and sums of its rows and columns, another the softmax weights of both, and products with
these weight the keys. A row is complete after its chunk; a column accumulates weighted keys, which
are rescaled when its largest score rises.

Numerics: scores, sums and weighted keys float32; weights, in 0..1 before the division by their sum,
are rounded to the dtype of the features. float32 products follow torch's setting, IEEE by default.
Deterministic: the chunks depend on sizes alone.
Cost: `paper_loss.label_halves`; memory: scores and both weights of a chunk, 8 or 12 bytes for each
of `WORKSPACE` scores, or of those of `MIN_ROWS` rows where they are more (beyond 262,144 keys).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.engines.paper_loss.label_halves import Half, HalvesBackend
from mmcl_fast.kernels.row_passes import row_dots_fwd, row_gradients_fwd
from mmcl_fast.kernels.two_sided_softmax import SoftmaxSums, two_sided_bwd, two_sided_fwd
from mmcl_fast.losses.torch_backend.row_statistics import RowStatistics
from mmcl_fast.losses.torch_backend.softmax_passes import LOG2
from mmcl_fast.losses.triton_backend.chunked import MIN_ROWS, add_product, padded, product

WORKSPACE = 2**28  # scores of a chunk: 1 GiB, and as much again for the weights


def contrast_labels(left: Half, right: Half, scale: float) -> None:
    """See `HalvesBackend.contrast_labels`."""
    factor = scale / LOG2
    rows, columns = (
        RowStatistics.start("softmax", half.positive_scores * factor) for half in (left, right)
    )
    for side in (rows, columns):
        side.include_positive()
    query_count, key_count = len(left.features), len(right.features)
    keys = padded(right.features)  # aligned rows of scores: faster products
    gradient = left.noise_gradient is not None
    weighted_keys = keys.new_zeros(keys.shape, dtype=torch.float32) if gradient else None
    if left.noise_gradient is not None and not key_count:
        left.noise_gradient.zero_()
    size = max(MIN_ROWS, WORKSPACE // max(key_count, 1))
    for start in range(0, query_count if key_count else 0, size):
        part = slice(start, min(start + size, query_count))
        query_chunk = left.features[part]
        scores = product(query_chunk, keys.T)
        row_sums, column_sums = two_sided_fwd(scores, key_count, factor, columns=True)
        assert column_sums is not None
        _merge(rows, part, row_sums)
        rescaling = _merge(columns, slice(None), column_sums)
        if left.noise_gradient is None or weighted_keys is None:
            continue
        row_weights = torch.empty_like(scores, dtype=query_chunk.dtype)
        column_weights = (
            scores if query_chunk.dtype == scores.dtype else torch.empty_like(row_weights)
        )
        two_sided_bwd(
            scores,
            key_count,
            factor,
            (rows.max_score[part], columns.max_score),
            (row_weights, column_weights),
        )
        product(row_weights, keys, out=left.noise_gradient[part])
        if start:
            weighted_keys[:key_count].mul_(rescaling[:, None])
        add_product(weighted_keys, column_weights.T, query_chunk)
    for half, side, weighted in (
        (left, rows, left.noise_gradient),
        (right, columns, weighted_keys),
    ):
        half.finish(side)
        if half.noise_gradient is not None and weighted is not None:
            row_gradients_fwd(
                weighted, half.positive, side.scale(), half.one_minus_p, out=half.noise_gradient
            )


def _merge(side: RowStatistics, part: slice, sums: SoftmaxSums) -> Tensor:
    row_max = torch.maximum(side.max_score[part], sums.max_score)
    return side.merge(part, row_max, sums.exp_sum * torch.exp2(sums.max_score - row_max))


TRITON = HalvesBackend(dots=row_dots_fwd, contrast_labels=contrast_labels)

__all__ = ["TRITON", "contrast_labels"]

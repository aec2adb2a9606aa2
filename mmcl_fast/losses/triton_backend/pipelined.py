"""Contrasts of long features whose scores would not be kept: products with an epilogue.

Scores that are not kept go through memory in both sweeps: 4 bytes written and 4 read in the first,
4 written, 4 read and 2 written and read twice in the second, 22 a score. Here the first sweep
stores none, and the second stores weights alone: 6 a score.
"""

from __future__ import annotations

from torch import Tensor

from mmcl_fast.kernels import contrast_products
from mmcl_fast.kernels.contrast_products import product_statistics_fwd, product_weights_bwd
from mmcl_fast.kernels.contrast_statistics import Partial
from mmcl_fast.losses.triton_backend.chunked import MAX_KEPT, Accumulator, Chunked, chunks, rows_of
from mmcl_fast.losses.triton_backend.problem import (
    KernelInputs,
    NegativeSums,
    WantedSums,
    WeightPair,
)


class Pipelined(Chunked):
    """See `Algorithm`.

    Cost in products of 2*N*M*D flop: statistics 1; gradients from statistics 1 for the weights of
    query and key, 1 more where these have different terms, and 1 for each gradient. One-way losses
    are those of `Chunked`, which has a chunk's scores once.
    """

    def _partial(
        self, inputs: KernelInputs, part: slice, key: Tensor, *, columns: bool, keep: bool
    ) -> tuple[Partial, Partial | None]:
        """Partial statistics of a chunk; nothing is kept."""
        pairs = inputs.pairs.part(part.start, part.stop)
        statistics: tuple[Partial, Partial | None] = product_statistics_fwd(
            inputs.query[part], inputs.key, pairs, columns=columns
        )
        return statistics

    def gradient(self, inputs: KernelInputs, wanted: WantedSums) -> NegativeSums:
        """See `Algorithm`."""
        query, key, weights = wanted
        sums = Accumulator.of(inputs, query=query is not None, key=key is not None, weights=weights)
        for part in chunks(inputs):
            if query is not None:
                self._add(sums, part, query, query=True, key=key is query)
            if key is not None and key is not query:
                self._add(sums, part, key, query=False, key=True)
        return sums.result()

    def _add(
        self, sums: Accumulator, part: slice, pair: WeightPair, *, query: bool, key: bool
    ) -> None:
        inputs = sums.inputs
        rows = inputs.query[part]
        weights = rows.new_empty(len(rows), len(sums.padded))
        of_rows = product_weights_bwd(
            rows,
            inputs.key,
            weights,
            inputs.pairs.part(part.start, part.stop),
            rows_of(pair, part),
            weight_sum=query and sums.weights is not None,
        )
        sums.add_weights(part, weights, of_rows, query=query, key=key)


def why_not(inputs: KernelInputs) -> str | None:
    """Why a contrast is not one of these; None: it is."""
    n, m = len(inputs.query), len(inputs.key)
    if n * m <= MAX_KEPT:
        return f"expected more than {MAX_KEPT} scores, which would all be kept, got {n} x {m}"
    reason: str | None = contrast_products.why_not(inputs.query, inputs.key)
    return reason


__all__ = ["Pipelined", "why_not"]

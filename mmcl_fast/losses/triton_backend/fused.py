"""Contrasts of short features: scores stay in registers."""

from __future__ import annotations

from dataclasses import dataclass

from mmcl_fast.kernels.contrast_common import WeightTerms
from mmcl_fast.kernels.contrast_gradient import contrast_gradient_bwd
from mmcl_fast.kernels.contrast_one_pass import contrast_one_pass_fwd
from mmcl_fast.kernels.contrast_row_losses import RowLosses
from mmcl_fast.kernels.contrast_shared_exponent import SharedExponent, shared_exponent
from mmcl_fast.kernels.contrast_statistics import Partial, contrast_statistics_fwd
from mmcl_fast.losses.triton_backend.problem import (
    Finalize,
    KernelInputs,
    NegativeSums,
    WantedSums,
    WeightPair,
)


@dataclass(frozen=True)
class Fused:
    """See `Algorithm`.

    Cost in products of 2*N*M*D flop: statistics 1 (same rows 1/2), each gradient 2, a one-way loss
    with the gradient of the query 2.
    """

    def statistics(
        self, inputs: KernelInputs, *, columns: bool, keep: bool = False
    ) -> tuple[Partial, Partial | None]:
        """See `Algorithm`."""
        statistics: tuple[Partial, Partial | None] = contrast_statistics_fwd(
            inputs.query,
            inputs.key,
            inputs.pairs,
            columns=columns or inputs.same_rows,
            triangle=inputs.same_rows,
        )
        return statistics

    def one_way(
        self, inputs: KernelInputs, finalize: Finalize, *, query: bool, key: bool
    ) -> tuple[RowLosses, NegativeSums]:
        """See `Algorithm`."""
        all_rows = slice(None)
        if not query:
            row_losses = finalize(all_rows, self.statistics(inputs, columns=False)[0])
            sums = NegativeSums()
        else:
            result = contrast_one_pass_fwd(inputs.query, inputs.key, inputs.pairs)
            partial = Partial(result.max_score, result.exp_sum, result.positive_score)
            row_losses = finalize(all_rows, partial)
            if result.weight_sum is None:
                sums = NegativeSums(result.weighted_keys, query_max=result.max_score)
            else:
                weights = result.weight_sum.sum(dim=0)
                sums = NegativeSums(result.weighted_keys, weights=weights)
        if key:
            terms = WeightTerms(row_losses.rows.max_score, row_losses.rows.scale)
            sums = sums._replace(key=self.gradient(inputs, WantedSums(key=(terms, None))).key)
        return row_losses, sums

    def gradient(self, inputs: KernelInputs, wanted: WantedSums) -> NegativeSums:
        """See `Algorithm`."""
        query, key, weights = wanted
        sums = NegativeSums()
        shared = _shared(inputs, query)
        if query is not None:
            out, weight_sum = contrast_gradient_bwd(
                (inputs.query, inputs.key),
                inputs.pairs,
                *query,
                rows_are_keys=False,
                shared=shared,
                weight_sum=weights,
            )
            sums = NegativeSums(out, weights=weight_sum)
        if key is not None:
            if key is not query:
                shared = _shared(inputs, key)
            shared = None if shared is None else shared.transposed
            out, _ = contrast_gradient_bwd(
                (inputs.key, inputs.query),
                inputs.pairs,
                key[1],
                key[0],
                rows_are_keys=True,
                shared=shared,
            )
            sums = sums._replace(key=out)
        return sums


def _shared(inputs: KernelInputs, pair: WeightPair | None) -> SharedExponent | None:
    """For one exponential a score, where both pair have a term."""
    if pair is None or pair[0] is None or pair[1] is None or inputs.pairs.sigmoid:
        return None
    return shared_exponent(pair[0], pair[1], inputs.query.dtype)


__all__ = ["Fused"]

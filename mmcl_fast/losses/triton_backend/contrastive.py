"""The contrastive losses by Triton kernels: row losses from statistics, gradients from weights.

Numerics contract. Scores, sums and losses are float32; statistics are relative to each row's own
maximum, so no temperature overflows, and the softmax loss is `(max - s_i+) + log1p(...)`, so a loss
near 0 keeps its relative accuracy. Gradients are float32 sums; for 16-bit features each negative's
weight is rounded to their dtype first (`kernels/contrast_gradient.py` has the bound), the
positives' are not. Autocast must be off. Deterministic: equal bits on every run.

Cost in products of 2*N*M*D flop, fused / chunked:

    losses alone                                       1 / 1   (same rows: 1/2 / 1)
    one way, or a stopped direction, query alone       2 / 2
    one way, both gradients                            4 / 3
    symmetric, both gradients                          5 / 4
    same rows                                        2.5 / 3

Chunked gradients that come with the losses cost up to 1 less: the last scores are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from mmcl_fast.kernels._tiles import arch_of, fused_features
from mmcl_fast.kernels.contrast_common import FLOOR, WeightTerms
from mmcl_fast.kernels.contrast_row_losses import RowLosses, contrast_row_losses_fwd, restored
from mmcl_fast.kernels.contrast_statistics import KERNEL, Partial
from mmcl_fast.losses.contrast import Contrast, Forward, Gradients, Requested
from mmcl_fast.losses.triton_backend import pipelined, small_batch
from mmcl_fast.losses.triton_backend.chunked import Chunked
from mmcl_fast.losses.triton_backend.fused import Fused
from mmcl_fast.losses.triton_backend.hard_negatives import hard_statistics
from mmcl_fast.losses.triton_backend.input_gradients import Factor, assembled
from mmcl_fast.losses.triton_backend.policy import current
from mmcl_fast.losses.triton_backend.problem import (
    Algorithm,
    Finalize,
    KernelInputs,
    NegativeSums,
    WantedSums,
    WeightPair,
)


def contrast_forward(contrast: Contrast, requested: Requested, weight: float | None) -> Forward:
    """Row losses, with their gradients or the statistics for them.

    Args:
        contrast: The problem; features of float16 | bfloat16 | float32, on CUDA (on the CPU in
            Triton's interpreter).
        requested: Inputs whose gradient is needed, now or later.
        weight: With a number, the gradients are those of `weight` times the sum of the losses.
            None: `contrast_backward` will weight each row.

    Returns: Losses, and gradients (if `weight` is a number) or statistics.

    Numerics: See the module.
    """
    contrast = _one_direction(contrast)
    both = weight is not None and any(requested)
    small = both and current().small_batch and small_batch.why_not(contrast) is None
    if weight is not None and small:
        return small_batch.losses_and_gradients(contrast, requested, _share(contrast, weight))
    if weight is not None and both and _has_one_term(contrast):
        losses, gradients = _one_way(contrast, requested, weight)
        return Forward(losses, gradients, ())
    inputs = KernelInputs.of(contrast)
    algorithm = algorithm_for(inputs)
    rows, columns = algorithm.statistics(inputs, columns=contrast.symmetric, keep=both)
    row_losses = _row_losses(contrast, inputs, slice(None), rows, columns)
    if weight is None or not both:
        of_columns = () if row_losses.columns is None else row_losses.columns.saved
        return Forward(row_losses.losses, None, (*row_losses.rows.saved, *of_columns))
    factor = _share(contrast, weight), None
    gradients = _gradients(contrast, requested, (inputs, algorithm), row_losses, factor)
    return Forward(row_losses.losses, gradients, ())


def contrast_backward(
    contrast: Contrast, requested: Requested, statistics: tuple[Tensor, ...], upstream: Tensor
) -> Gradients:
    """Gradients of sum_i upstream_i loss_i.

    Args:
        contrast: As it was in the forward pass.
        requested: Inputs whose gradient is needed.
        statistics: Those of `contrast_forward`.
        upstream: [N], the weight of each loss.

    Numerics: See the module.
    """
    contrast = _one_direction(contrast)
    inputs = KernelInputs.of(contrast)
    upstream = upstream.to(torch.float32)
    largest = upstream.abs().amax() if len(upstream) else upstream.new_ones(())
    largest = torch.where(largest == 0, 1.0, largest)
    # Kernels take weights within -1..1.
    row_losses = restored(statistics, contrast.form, upstream / largest)
    factor = _share(contrast, 1.0), largest
    return _gradients(contrast, requested, (inputs, algorithm_for(inputs)), row_losses, factor)


def _one_direction(contrast: Contrast) -> Contrast:
    """Without `key` both directions are the same: one is enough."""
    return replace(contrast, symmetric=False) if contrast.key is None else contrast


def _has_one_term(contrast: Contrast) -> bool:
    """Whether each pair's weight depends on the statistics of one row only."""
    return contrast.stopped or not (contrast.symmetric or contrast.key is None)


def _share(contrast: Contrast, weight: float) -> float:
    """Weight of one direction's losses."""
    return weight / 2 if contrast.symmetric else weight


def _one_way(contrast: Contrast, requested: Requested, weight: float) -> tuple[Tensor, Gradients]:
    """Losses and gradients in one sweep over each direction."""
    inputs = KernelInputs.of(contrast)
    algorithm = algorithm_for(inputs)
    query = requested.query or requested.temperature or requested.bias
    key = requested.key and not contrast.stopped
    row_losses, sums = algorithm.one_way(
        inputs, partial(_row_losses, contrast, inputs), query=query, key=key
    )  # fmt: skip
    if contrast.symmetric:
        mirrored = inputs.mirrored()
        key_requested = requested.key or requested.temperature
        column_losses, columns = algorithm.one_way(
            mirrored, partial(_row_losses, contrast, mirrored), query=key_requested, key=False
        )
        losses = (row_losses.losses + column_losses.losses) / 2
        row_losses = RowLosses(losses, row_losses.rows, column_losses.rows)
        sums = sums._replace(key=columns.query, key_max=columns.query_max)
    factor = _share(contrast, weight), None
    return row_losses.losses, _assembled(contrast, inputs, requested, sums, row_losses, factor)


def _row_losses(
    contrast: Contrast,
    inputs: KernelInputs,
    part: slice,
    rows: Partial,
    columns: Partial | None = None,
) -> RowLosses:
    """Losses of some rows, with their positives and hard negatives."""
    if contrast.positive_key is not None:
        rows = rows._replace(positive_score=inputs.paired_scores(contrast.positive_key, part)[None])
    if contrast.hard is not None:
        max_score, exp_sum = hard_statistics(inputs, contrast, part)
        rows = Partial(
            torch.cat([rows.max_score, max_score[None]]),
            torch.cat([rows.exp_sum, exp_sum[None]]),
            rows.positive_score,
        )
    same_rows = inputs.same_rows and columns is not None
    index = inputs.pairs.positive
    return contrast_row_losses_fwd(
        rows, columns, contrast.form, same_rows=same_rows, keys=len(inputs.key),
        index=index[part] if isinstance(index, Tensor) else None,
    )  # fmt: skip


def _gradients(
    contrast: Contrast,
    requested: Requested,
    solver: tuple[KernelInputs, Algorithm],
    row_losses: RowLosses,
    factor: Factor,
) -> Gradients:
    """Gradients of the losses, with the weights in their terms."""
    inputs = solver[0]
    row_terms = WeightTerms(row_losses.rows.max_score, row_losses.rows.scale)
    column_terms = row_terms if inputs.same_rows else None
    if row_losses.columns is not None:
        column_terms = WeightTerms(row_losses.columns.max_score, row_losses.columns.scale)
    sums = _negatives(contrast, solver, requested, (row_terms, column_terms))
    return _assembled(contrast, inputs, requested, sums, row_losses, factor)


def _assembled(
    contrast: Contrast,
    inputs: KernelInputs,
    requested: Requested,
    sums: NegativeSums,
    row_losses: RowLosses,
    factor: Factor,
) -> Gradients:
    """`assembled`, in one launch where a typical batch allows it."""
    number, on_device = factor
    stored = current().small_batch and small_batch.stores_scores(inputs)  # so sums have one part
    if stored and on_device is None and small_batch.is_pair(contrast, requested):
        return small_batch.pair_gradients(inputs, requested, sums, row_losses, number)
    return assembled(contrast, inputs, requested, sums, row_losses, factor)


def _negatives(
    contrast: Contrast,
    solver: tuple[KernelInputs, Algorithm],
    requested: Requested,
    sides: WeightPair,
) -> NegativeSums:
    """Weighted sums over negatives, for the requested gradients."""
    inputs, algorithm = solver
    rows, columns = sides
    query = requested.query or requested.temperature or requested.bias
    key = requested.key and not contrast.stopped
    query_sides = key_sides = sides
    if contrast.stopped:
        query_sides, key_sides = (rows, None), (None, columns)
        key = contrast.symmetric and (requested.key or requested.temperature)
    wanted = WantedSums(
        query_sides if query else None, key_sides if key else None, weights=requested.bias
    )
    return algorithm.gradient(inputs, wanted)


def algorithm_for(inputs: KernelInputs) -> Algorithm:
    """The algorithm for a contrast, by its sizes, dtype and device."""
    if not len(inputs.query) or not len(inputs.key):
        return Empty()
    if current().small_batch and small_batch.stores_scores(inputs):
        return Chunked()
    arch = arch_of(KERNEL, inputs.query)
    if inputs.query.shape[1] <= fused_features(arch, inputs.query.element_size()):
        return Fused()
    if current().pipelined and pipelined.why_not(inputs) is None:
        return pipelined.Pipelined()
    return Chunked()


@dataclass(frozen=True)
class Empty:
    """A contrast without queries or without keys: nothing to launch. See `Algorithm`."""

    def statistics(
        self, inputs: KernelInputs, *, columns: bool, keep: bool = False
    ) -> tuple[Partial, Partial | None]:
        """See `Algorithm`."""
        return _empty_statistics(inputs, len(inputs.query)), _empty_statistics(
            inputs, len(inputs.key)
        ) if columns else None

    def one_way(
        self, inputs: KernelInputs, finalize: Finalize, *, query: bool, key: bool
    ) -> tuple[RowLosses, NegativeSums]:
        """See `Algorithm`."""
        rows = finalize(slice(None), _empty_statistics(inputs, len(inputs.query)))
        sides = (None, None)
        wanted = WantedSums(sides if query else None, sides if key else None, weights=query)
        return rows, self.gradient(inputs, wanted)

    def gradient(self, inputs: KernelInputs, wanted: WantedSums) -> NegativeSums:
        """See `Algorithm`."""
        zeros = inputs.query.new_zeros
        return NegativeSums(
            None if wanted.query is None else zeros((1, *inputs.query.shape), dtype=torch.float32),
            None if wanted.key is None else zeros((1, *inputs.key.shape), dtype=torch.float32),
            zeros(len(inputs.query), dtype=torch.float32) if wanted.weights else None,
        )


def _empty_statistics(inputs: KernelInputs, rows: int) -> Partial:
    zeros = inputs.query.new_zeros(1, rows, dtype=torch.float32)
    return Partial(torch.full_like(zeros, FLOOR.value), zeros, zeros)


__all__ = ["contrast_backward", "contrast_forward"]

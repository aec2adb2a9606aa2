"""The contrastive losses by Triton kernels: row losses from statistics, gradients from weights.

Numerics contract. Scores, sums and losses are float32; statistics are relative to each row's own
maximum, so no temperature overflows, and the softmax loss is `(top - s_i+) + log1p(...)`, so a loss
near 0 keeps its relative accuracy. Gradients are float32 sums; for 16-bit features each negative's
weight is rounded to their dtype first (`kernels/contrast_gradient.py` has the bound), the
positives' are not. Autocast must be off. Deterministic: equal bits on every run.

Cost in products of 2*N*M*D flop, fused / chunked:

    losses alone                                       1 / 1   (own rows: 1/2 / 1)
    one way, or a stopped direction, query alone       2 / 2
    one way, both gradients                            4 / 3
    symmetric, both gradients                          5 / 4
    own rows                                         2.5 / 3

Chunked gradients that come with the losses take up to 1 less: the last scores are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from mmcl_fast.kernels._tiles import arch_of, fused_features
from mmcl_fast.kernels.contrast_common import FLOOR
from mmcl_fast.kernels.contrast_gradient import Side
from mmcl_fast.kernels.contrast_row_losses import Settled, contrast_settle_fwd, restored
from mmcl_fast.kernels.contrast_statistics import KERNEL, Partial
from mmcl_fast.losses.contrast import Contrast, Forward, Gradients, Wanted
from mmcl_fast.losses.triton_backend.chunked import Chunked
from mmcl_fast.losses.triton_backend.fused import Fused
from mmcl_fast.losses.triton_backend.hard_negatives import hard_statistics
from mmcl_fast.losses.triton_backend.input_gradients import Factor, assembled
from mmcl_fast.losses.triton_backend.problem import Engine, Settle, Sides, Sums, Work


def contrast_forward(contrast: Contrast, wanted: Wanted, weight: float | None) -> Forward:
    """Row losses, and what their gradient takes.

    Args:
        contrast: The problem; features of float16 | bfloat16 | float32, on CUDA (on the CPU in
            Triton's interpreter).
        wanted: Inputs whose gradient is wanted, now or later.
        weight: With a number, the gradients are those of `weight` times the sum of the losses.
            None: rows will be weighted one by one, by `contrast_backward`.

    Returns: Losses, and gradients (if `weight` is a number) or statistics.

    Numerics: See the module.
    """
    contrast = _plain(contrast)
    both = weight is not None and any(wanted)
    if weight is not None and both and _directions_are_apart(contrast):
        losses, gradients = _one_way(contrast, wanted, weight)
        return Forward(losses, gradients, ())
    work = Work.of(contrast)
    engine = engine_of(work)
    rows, columns = engine.statistics(work, columns=contrast.symmetric, keep=both)
    settled = _settled(contrast, work, slice(None), rows, columns)
    if weight is None or not both:
        of_columns = () if settled.columns is None else settled.columns.saved
        return Forward(settled.losses, None, (*settled.rows.saved, *of_columns))
    factor = _share(contrast, weight), None
    gradients = _gradients(contrast, wanted, (work, engine), settled, factor)
    return Forward(settled.losses, gradients, ())


def contrast_backward(
    contrast: Contrast, wanted: Wanted, statistics: tuple[Tensor, ...], upstream: Tensor
) -> Gradients:
    """Gradients of the losses, each weighted by its own number.

    Args:
        contrast: As it was in the forward pass.
        wanted: Inputs whose gradient is wanted.
        statistics: Those of `contrast_forward`.
        upstream: [N], the weight of each loss.

    Numerics: See the module.
    """
    contrast = _plain(contrast)
    work = Work.of(contrast)
    upstream = upstream.to(torch.float32)
    largest = upstream.abs().amax() if len(upstream) else upstream.new_ones(())
    largest = torch.where(largest == 0, 1.0, largest)
    # Kernels take weights within -1..1.
    settled = restored(statistics, contrast.form, upstream / largest)
    factor = _share(contrast, 1.0), largest
    return _gradients(contrast, wanted, (work, engine_of(work)), settled, factor)


def _plain(contrast: Contrast) -> Contrast:
    """Of an own contrast both directions are the same: one is enough."""
    return replace(contrast, symmetric=False) if contrast.key is None else contrast


def _directions_are_apart(contrast: Contrast) -> bool:
    """Whether no pair's weight takes the statistics of two rows."""
    return contrast.stopped or not (contrast.symmetric or contrast.key is None)


def _share(contrast: Contrast, weight: float) -> float:
    """Weight of each direction's losses."""
    return weight / 2 if contrast.symmetric else weight


def _one_way(contrast: Contrast, wanted: Wanted, weight: float) -> tuple[Tensor, Gradients]:
    """Losses and gradients at once."""
    work = Work.of(contrast)
    engine = engine_of(work)
    query = wanted.query or wanted.temperature or wanted.bias
    key = wanted.key and not contrast.stopped
    settled, sums = engine.one_way(
        work, partial(_settled, contrast, work), query=query, key=key
    )  # fmt: skip
    if contrast.symmetric:
        other = work.mirrored()
        wanted_key = wanted.key or wanted.temperature
        mirrored, columns = engine.one_way(
            other, partial(_settled, contrast, other), query=wanted_key, key=False
        )
        losses = (settled.losses + mirrored.losses) / 2
        settled = Settled(losses, settled.rows, mirrored.rows)
        sums = sums._replace(key=columns.query, key_tops=columns.query_tops)
    factor = _share(contrast, weight), None
    return settled.losses, assembled(contrast, work, wanted, sums, settled, factor)


def _settled(
    contrast: Contrast, work: Work, part: slice, rows: Partial, columns: Partial | None = None
) -> Settled:
    """What partial results of some rows come to, with positives and hard negatives."""
    if contrast.positive_key is not None:
        rows = rows._replace(found=work.paired_scores(contrast.positive_key, part)[None])
    if contrast.hard is not None:
        top, total = hard_statistics(work, contrast.hard, part)
        rows = Partial(
            torch.cat([rows.top, top[None]]), torch.cat([rows.total, total[None]]), rows.found
        )
    own = work.own and columns is not None
    index = work.pairs.positive
    return contrast_settle_fwd(
        rows, columns, contrast.form, own=own, keys=len(work.key),
        index=index[part] if isinstance(index, Tensor) else None,
    )  # fmt: skip


def _gradients(
    contrast: Contrast,
    wanted: Wanted,
    means: tuple[Work, Engine],
    settled: Settled,
    factor: Factor,
) -> Gradients:
    """Gradients of the losses, each weighted by what its terms are."""
    work = means[0]
    row_side = Side(settled.rows.top, settled.rows.scale)
    column_side = row_side if work.own else None
    if settled.columns is not None:
        column_side = Side(settled.columns.top, settled.columns.scale)
    sums = _negatives(contrast, means, wanted, (row_side, column_side))
    return assembled(contrast, work, wanted, sums, settled, factor)


def _negatives(
    contrast: Contrast, means: tuple[Work, Engine], wanted: Wanted, sides: Sides
) -> Sums:
    """Weighted sums over negatives, for the inputs whose gradient takes them."""
    work, engine = means
    rows, columns = sides
    query = wanted.query or wanted.temperature or wanted.bias
    key = wanted.key and not contrast.stopped
    query_sides = key_sides = sides
    if contrast.stopped:
        query_sides, key_sides = (rows, None), (None, columns)
        key = contrast.symmetric and (wanted.key or wanted.temperature)
    return engine.gradient(
        work, query_sides if query else None, key_sides if key else None, weights=wanted.bias
    )


def engine_of(work: Work) -> Engine:
    """The engine of a contrast: a function of its sizes, dtype and device."""
    if not len(work.query) or not len(work.key):
        return Empty()
    arch = arch_of(KERNEL, work.query)
    if work.query.shape[1] <= fused_features(arch, work.query.element_size()):
        return Fused()
    return Chunked()


@dataclass(frozen=True)
class Empty:
    """A contrast without queries or without keys: nothing to launch. See `Engine`."""

    def statistics(
        self, work: Work, *, columns: bool, keep: bool = False
    ) -> tuple[Partial, Partial | None]:
        """See `Engine`."""
        return _nothing(work, len(work.query)), _nothing(work, len(work.key)) if columns else None

    def one_way(
        self, work: Work, settle: Settle, *, query: bool, key: bool
    ) -> tuple[Settled, Sums]:
        """See `Engine`."""
        rows = settle(slice(None), _nothing(work, len(work.query)))
        sides = (None, None)
        return rows, self.gradient(
            work, sides if query else None, sides if key else None, weights=query
        )

    def gradient(
        self, work: Work, query: Sides | None, key: Sides | None, *, weights: bool
    ) -> Sums:
        """See `Engine`."""
        zeros = work.query.new_zeros
        return Sums(
            None if query is None else zeros((1, *work.query.shape), dtype=torch.float32),
            None if key is None else zeros((1, *work.key.shape), dtype=torch.float32),
            zeros(len(work.query), dtype=torch.float32) if weights else None,
        )


def _nothing(work: Work, rows: int) -> Partial:
    zeros = work.query.new_zeros(1, rows, dtype=torch.float32)
    return Partial(torch.full_like(zeros, FLOOR.value), zeros, zeros)


__all__ = ["contrast_backward", "contrast_forward"]

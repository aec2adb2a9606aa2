"""Short features: scores live in registers only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_gradient import Side, contrast_gradient_bwd
from mmcl_fast.kernels.contrast_one_pass import contrast_one_pass_fwd
from mmcl_fast.kernels.contrast_statistics import Partial, contrast_statistics_fwd, merged
from mmcl_fast.triton_impl.sides import Statistics
from mmcl_fast.triton_impl.work import Settle, Sides, Sums, Work


@dataclass(frozen=True)
class Fused:
    """See `Engine`.

    Cost in products of 2*N*M*D flop: statistics 1 (own 1/2), each gradient 2, a one-way loss with
    the query's gradient 2.
    """

    def statistics(
        self, work: Work, *, columns: bool, keep: bool = False
    ) -> tuple[Partial, Partial | None]:
        """See `Engine`."""
        rows, others = contrast_statistics_fwd(
            work.query, work.key, work.pairs, columns=columns or work.own, triangle=work.own
        )
        if work.own:
            return _joined(work, rows, others), None
        return merged(rows), None if others is None else merged(others)

    def one_way(
        self, work: Work, settle: Settle, *, query: bool, key: bool
    ) -> tuple[Statistics, Sums]:
        """See `Engine`."""
        every = slice(None)
        if not query:
            statistics = settle(every, self.statistics(work, columns=False)[0])
            sums = Sums()
        else:
            top, total, found, mixture, weights = contrast_one_pass_fwd(
                work.query, work.key, work.pairs
            )
            statistics = settle(every, Partial(top, total, found))
            scale = statistics.scale()
            factor = scale if weights is not None else torch.exp2(top - statistics.top) * scale
            merged = _weighted(mixture, factor)
            sums = Sums(merged, None, None if weights is None else weights.sum(dim=0))
        if key:
            side = Side(statistics.top, statistics.scale())
            sums = sums._replace(key=self.gradient(work, None, (side, None), weights=False).key)
        return statistics, sums

    def gradient(
        self, work: Work, query: Sides | None, key: Sides | None, *, weights: bool
    ) -> Sums:
        """See `Engine`."""
        found = Sums()
        if query is not None:
            out, sums = contrast_gradient_bwd(
                (work.query, work.key), work.pairs, *query, own_keys=False, sums=weights
            )
            found = Sums(out, None, sums)
        if key is not None:
            out, _ = contrast_gradient_bwd(
                (work.key, work.query), work.pairs, key[1], key[0], own_keys=True
            )
            found = found._replace(key=out)
        return found


def _joined(work: Work, rows: Partial, columns: Partial) -> Partial:
    """Both halves of a triangle: what row i met above the diagonal, and what column i met."""
    rows, columns = merged(rows), merged(columns)
    positive, found = work.pairs.positive, rows.found
    assert found is not None
    if isinstance(positive, Tensor):  # its own inverse: the score stands where it is above
        index = torch.arange(len(positive), device=positive.device)
        found = torch.where(positive > index, found, found[:, positive])
    return Partial(
        torch.cat([rows.top, columns.top]), torch.cat([rows.total, columns.total]), found
    )


def _weighted(parts: Tensor, factor: Tensor) -> Tensor:
    """sum_p factor_p parts_p over [P, N, D] and [P, N] or [N]."""
    if len(parts) == 1:
        return parts[0].mul_(factor.view(-1, 1))
    return (parts * factor[..., None]).sum(dim=0)


__all__ = ["Fused"]

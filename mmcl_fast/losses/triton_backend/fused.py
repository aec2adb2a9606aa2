"""Short features: scores live in registers only."""

from __future__ import annotations

from dataclasses import dataclass

from mmcl_fast.kernels.contrast_gradient import (
    Shared,
    Side,
    contrast_gradient_bwd,
    shared_factors,
)
from mmcl_fast.kernels.contrast_one_pass import contrast_one_pass_fwd
from mmcl_fast.kernels.contrast_row_losses import Settled
from mmcl_fast.kernels.contrast_statistics import Partial, contrast_statistics_fwd
from mmcl_fast.losses.triton_backend.problem import Settle, Sides, Sums, Work


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
        found: tuple[Partial, Partial | None] = contrast_statistics_fwd(
            work.query, work.key, work.pairs, columns=columns or work.own, triangle=work.own
        )
        return found

    def one_way(
        self, work: Work, settle: Settle, *, query: bool, key: bool
    ) -> tuple[Settled, Sums]:
        """See `Engine`."""
        every = slice(None)
        if not query:
            settled = settle(every, self.statistics(work, columns=False)[0])
            sums = Sums()
        else:
            top, total, found, mixture, weights = contrast_one_pass_fwd(
                work.query, work.key, work.pairs
            )
            settled = settle(every, Partial(top, total, found))
            if weights is None:
                sums = Sums(mixture, query_tops=top)
            else:
                sums = Sums(mixture, None, weights.sum(dim=0))
        if key:
            side = Side(settled.rows.top, settled.rows.scale)
            sums = sums._replace(key=self.gradient(work, None, (side, None), weights=False).key)
        return settled, sums

    def gradient(
        self, work: Work, query: Sides | None, key: Sides | None, *, weights: bool
    ) -> Sums:
        """See `Engine`."""
        found = Sums()
        shared = _shared(work, query)
        if query is not None:
            out, sums = contrast_gradient_bwd(
                (work.query, work.key), work.pairs, *query, own_keys=False, shared=shared,
                sums=weights,
            )  # fmt: skip
            found = Sums(out, None, sums)
        if key is not None:
            if key is not query:
                shared = _shared(work, key)
            shared = None if shared is None else shared.turned
            out, _ = contrast_gradient_bwd(
                (work.key, work.query), work.pairs, key[1], key[0], own_keys=True, shared=shared
            )
            found = found._replace(key=out)
        return found


def _shared(work: Work, sides: Sides | None) -> Shared | None:
    """What one exponential for both sides takes, where both count."""
    if sides is None or sides[0] is None or sides[1] is None or work.pairs.sigmoid:
        return None
    return shared_factors(sides[0], sides[1], work.query.dtype)


__all__ = ["Fused"]

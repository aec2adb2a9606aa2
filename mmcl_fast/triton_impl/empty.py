"""A contrast without queries or without keys: nothing to launch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmcl_fast.kernels.contrast_common import FLOOR
from mmcl_fast.kernels.contrast_row_losses import Settled
from mmcl_fast.kernels.contrast_statistics import Partial
from mmcl_fast.triton_impl.work import Settle, Sides, Sums, Work


@dataclass(frozen=True)
class Empty:
    """See `Engine`."""

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


__all__ = ["Empty"]

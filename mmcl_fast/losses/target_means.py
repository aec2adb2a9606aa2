"""Targets over several keys: the mean score of the targets is the score of their mean.

Cost, beside the loss of one positive, in products of 2*N*M*D flop: 1 for the means and 1 for their
gradient, of masks and shares; O(N*P*D) of P row numbers a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmcl_fast.losses.class_sums import add_rows
from mmcl_fast.losses.contrast import Contrast, Gradients, Requested

_BLOCK = 2**20  # elements computed at a time


@dataclass(frozen=True)
class TargetMeans:
    """The mean of each query's targets, by their shares.

    Attributes:
        contrast: With `supervised` and targets.
        mean: [N, D], in `Contrast.dtype`; 0 without a target.
        mass: [N]: what the shares of a query add up to as they were given, 1 or 0 for positives.
    """

    contrast: Contrast
    mean: Tensor
    mass: Tensor

    @classmethod
    def of(cls, contrast: Contrast) -> TargetMeans:
        """From a contrast with targets."""
        query, key = contrast.query, _regular_keys(contrast)
        mean = torch.empty(query.shape, dtype=contrast.dtype, device=query.device)
        mass = mean.new_empty(query.shape[0])
        wide = key.to(contrast.dtype)
        for part in _parts(contrast):
            if (listed := _listed(contrast, part)) is not None:
                at, shares, mass[part] = listed
                mean[part] = torch.bmm(shares[:, None], wide[at])[:, 0]
            else:
                values, total, mass[part] = _values(contrast, part)
                mean[part] = (values @ wide).div_(total[:, None])
        return cls(contrast, mean, mass)

    def base(self) -> Contrast:
        """The contrast with the means as positives."""
        pairwise = self.contrast.pairwise
        if pairwise is not None and pairwise.excluded is None:
            pairwise = None
        return replace(self.contrast, supervised=False, pairwise=pairwise, positive_key=self.mean)

    def requested(self, requested: Requested) -> Requested:
        """The request for `base`."""
        keys = requested.query if self.contrast.key is None else requested.key
        return requested._replace(positive_key=keys and not self.contrast.stopped)

    def weighted(self, rows: Tensor) -> Tensor:
        """Losses or weights of rows [N], times the masses."""
        rows = rows.to(self.mass.dtype)
        return torch.where(self.mass == 0, 0.0, self.mass * rows)  # NaN stays

    def onto_keys(self, gradients: Gradients, requested: Requested) -> Gradients:
        """Gradients of `base`, with that of the means on their keys."""
        of_mean = gradients.positive_key
        gradients = gradients._replace(positive_key=None)
        if of_mean is None:
            return gradients
        contrast = self.contrast
        result = gradients.query if contrast.key is None else gradients.key
        assert result is not None
        regular = result[: _regular_keys(contrast).shape[0]]
        for part in _parts(contrast):
            if (listed := _listed(contrast, part)) is not None:
                at, shares, _ = listed
                addends = shares[:, :, None] * of_mean[part, None]
                add_rows(regular, at.flatten(), addends.flatten(0, 1))
            else:
                values, total, _ = _values(contrast, part)
                regular.addmm_(values.T, of_mean[part] / total[:, None])
        return gradients


def target_shares(contrast: Contrast, rows: slice) -> tuple[Tensor, Tensor]:
    """Shares of the regular keys in the targets of some queries, and what these add up to.

    Returns: [r, M], in `Contrast.dtype`, whose rows sum to 1, or to 0 without a target; and the sum
        of each row as it was given [r], or for positives 1 or 0.
    """
    values, total, mass = _values(contrast, rows)
    return values.div_(total[:, None]), mass


def _values(contrast: Contrast, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Values [r, M] that are shares after division by the second result [r]; and masses [r]."""
    assert contrast.pairwise is not None
    columns = _regular_keys(contrast).shape[0]
    given = contrast.pairwise.target_block(rows, slice(0, columns), contrast.query.device)
    values = given.to(contrast.dtype, copy=True)
    if contrast.exclude_self:
        values.diagonal(rows.start).zero_()
    total = values.sum(dim=1)
    mass = total if given.is_floating_point() else (total > 0).to(total.dtype)
    return values, torch.where(total > 0, total, 1.0), mass


def _listed(contrast: Contrast, rows: slice) -> tuple[Tensor, Tensor, Tensor] | None:
    """Keys of some queries by number [r, P] with their shares [r, P], and masses [r], if listed."""
    assert contrast.pairwise is not None
    targets = contrast.pairwise.targets
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64:
        return None
    at = targets[rows]
    present = at >= 0
    if contrast.exclude_self:
        present &= at != torch.arange(rows.start, rows.stop, device=at.device)[:, None]
    shares = present.to(contrast.dtype)
    total = shares.sum(dim=1)
    return at.clamp(min=0), shares / total.clamp(min=1)[:, None], (total > 0).to(total.dtype)


def _regular_keys(contrast: Contrast) -> Tensor:
    key = contrast.query if contrast.key is None else contrast.key
    return key[: key.shape[0] - contrast.extra]


def _parts(contrast: Contrast) -> Iterator[slice]:
    """Ranges of queries that have at most some number of elements in a block."""
    assert contrast.pairwise is not None
    rows, width = contrast.query.shape[0], _regular_keys(contrast).shape[0]
    targets = contrast.pairwise.targets
    if isinstance(targets, Tensor) and targets.dtype == torch.int64:
        width = targets.shape[1] * contrast.query.shape[1]
    size = max(1, _BLOCK // max(1, width))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


__all__ = ["TargetMeans", "target_shares"]

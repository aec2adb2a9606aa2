"""Sums over the rows of a class, in O(rows) and without waiting for the device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Classes(NamedTuple):
    """Sum and number of the keys with each query's label.

    Attributes:
        key_sum: [N, D], in the dtype of the keys.
        size: [N], same dtype.
    """

    key_sum: Tensor
    size: Tensor

    @classmethod
    def of(cls, labels: Tensor, key_labels: Tensor, keys: Tensor) -> Classes:
        """From labels [N] and [M] of one dtype, and keys [M, D]."""
        both = torch.cat([labels, key_labels])
        ordered, order = both.sort()
        changes = (ordered[1:] != ordered[:-1]).cumsum(0)
        rank = torch.cat([changes.new_zeros(min(1, len(both))), changes])
        codes = torch.empty_like(rank).scatter_(0, order, rank)
        query_codes, key_codes = codes[: len(labels)], codes[len(labels) :]
        sums = keys.new_zeros(len(both), keys.shape[1])
        # index_put sums in a fixed order on every device; index_add does not.
        sums = sums.index_put((key_codes,), keys, accumulate=True)
        counts = keys.new_zeros(len(both))
        counts = counts.index_put((key_codes,), keys.new_ones(len(key_codes)), accumulate=True)
        return cls(sums[query_codes], counts[query_codes])


__all__ = ["Classes"]

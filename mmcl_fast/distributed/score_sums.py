"""Sums of the scores of some pairs of a tile, and their gradients, without the scores.

Scores are linear in queries and keys: a query's sum over keys is its score with the keys' sum.
O(rows * D) instead of a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmcl_fast.losses.class_sums import ClassCodes, sum_by_class

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SelectedPairs:
    """Some pairs (query, key) of a tile.

    Attributes:
        labels: Of the queries [N] and of the keys [M]. None: all pairs are selected.
        same: The pairs of one label are selected; else those of two labels.
        diagonal: Queries and keys are rows of the same rank, and no row is paired with itself.
    """

    labels: Pair | None
    same: bool = False
    diagonal: bool = False

    @property
    def mirrored(self) -> SelectedPairs:
        """Queries and keys exchanged."""
        return self if self.labels is None else replace(self, labels=self.labels[::-1])

    def sums(self, x: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """For each of N = `rows` queries the sum of its keys' rows of `x` [M, K], and their number.

        Returns: [N, K] and [N], in float64: a sum over all keys minus most of them must be as exact
            as one key.
        """
        wide = x.double()
        total, count = wide.sum(dim=0).expand(rows, -1), wide.new_full((rows,), len(x))
        if self.labels is not None:
            codes = ClassCodes.of(*self.labels)
            of_label = sum_by_class(codes.key, wide, codes.number)[codes.query]
            ones = wide.new_ones(len(x), 1)
            size = sum_by_class(codes.key, ones, codes.number)[codes.query, 0]
            if self.same:
                total, count = of_label, size
            else:
                total, count = total - of_label, count - size
        if self.diagonal and (self.labels is None or self.same):
            total, count = total - wide, count - 1
        # Without keys the cancelled sum has rounding errors.
        return torch.where(count[:, None] > 0, total, 0.0), count

    def scores(self, query: Tensor, key: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of each query's selected scores, and their number, [N] in float64."""
        total, count = self.sums(key, len(query))
        return scores(query, total, temperature), count

    def query_gradient(self, key: Tensor, rows: Tensor, columns: Tensor | None) -> Tensor:
        """sum_j (rows_i + columns_j) key_j over the selected keys of each query i.

        Args:
            key: [M, D].
            rows: [N].
            columns: [M], or None for zeros.

        Returns: [N, D], in float64: the gradient of the queries, where `rows` and `columns` are in
            units of dL/d<q, k>.
        """
        total = rows.double()[:, None] * self.sums(key, len(rows))[0]
        if columns is None:
            return total
        return total + self.sums(key.double() * columns[:, None], len(rows))[0]


def scores(query: Tensor, key: Tensor, temperature: Tensor) -> Tensor:
    """Of pairs [N, D], [N] in float64."""
    products: Tensor = torch.linalg.vecdot(query.double(), key.double())
    return products / temperature.double()


__all__ = ["Pair", "SelectedPairs", "scores"]

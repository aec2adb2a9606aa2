"""Gradients of a contrast, accumulated block by block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.losses.class_sums import add_rows, chunks
from mmcl_fast.losses.contrast import Gradients, Requested
from mmcl_fast.losses.torch_backend.matmul import product
from mmcl_fast.losses.torch_backend.score_blocks import Block, BlockedContrast
from mmcl_fast.losses.torch_backend.softmax_passes import LOG2


@dataclass
class GradientAccumulator:
    """Gradients in the order of `blocked`; weights are dL/ds of the negatives.

    Attributes:
        query: [N, D], through the negatives until positives are added.
        columns: [D, M], of the keys through the negatives; with the same rows on both sides a
            second part of the gradient of the query.
        positive_weight: [N], -dL/ds of the positives of queries, whose keys have a gradient.
        temperature: [N], set when positives are added.
    """

    blocked: BlockedContrast
    requested: Requested
    query: Tensor | None
    columns: Tensor | None
    positive_weight: Tensor | None = None
    hard: Tensor | None = None
    temperature: Tensor | None = None
    bias: Tensor | None = None

    @classmethod
    def of(cls, blocked: BlockedContrast, requested: Requested) -> GradientAccumulator:
        """Zeros for the requested gradients, and for sums that that of the temperature needs."""
        contrast, rows = blocked.contrast, blocked.query
        both_stopped = contrast.stopped and contrast.symmetric
        columns = requested.key or blocked.same_rows or (requested.temperature and both_stopped)
        return cls(
            blocked,
            requested,
            query=torch.zeros_like(rows) if requested.query or requested.temperature else None,
            columns=rows.new_zeros(rows.shape[1], len(blocked.key)) if columns else None,
            hard=rows.new_zeros(contrast.hard.shape)
            if requested.hard and contrast.hard is not None
            else None,
            bias=rows.new_zeros(len(rows)) if requested.bias else None,
        )

    def add_rows(self, block: Block, weights: Tensor, scale: Tensor | None) -> None:
        """Add to the query's gradient, through `weights` [c, block] times `scale` [c]."""
        if self.query is None:
            return
        part = product(weights, self.blocked.key_t(block))
        factor = 1.0 / self.blocked.temperature
        part.mul_(factor if scale is None else (scale * factor)[:, None])
        self.query[block.rows].add_(part)

    def add_columns(self, block: Block, weights: Tensor, scale: Tensor | None) -> None:
        """Add to the keys' gradient, through `weights` [c, block] times `scale` [c]."""
        if self.columns is not None:
            self.columns[:, block.columns].add_(self.through_queries(block, weights, scale))

    def through_queries(self, block: Block, weights: Tensor, scale: Tensor | None = None) -> Tensor:
        """Weighted sums of query / temperature, [D, block]."""
        queries = self.blocked.query_over_temperature_t(block.rows)
        return product(queries if scale is None else queries * scale, weights.T)

    def add_hard(self, block: Block, weights: Tensor) -> None:
        """Add the part of the rows' hard negatives, with `weights` [c, K]."""
        if self.query is not None:
            part = torch.bmm(weights[:, None], self.blocked.hard(block))[:, 0]
            self.query[block.rows].add_(part / self.blocked.temperature)
        if self.hard is not None:
            queries = self.blocked.query[block.rows, None] / self.blocked.temperature
            torch.mul(weights[:, :, None], queries, out=self.hard[block.rows])

    def add_bias(self, block: Block, weights: Tensor) -> None:
        """Set the part of a block's rows: row sums [c] of the weights."""
        assert self.bias is not None
        self.bias[block.rows] = weights

    def add_positives(self, positive_weight: Tensor) -> None:
        """Add the positives, after all blocks, with weights -dL/ds+ [N] of all directions."""
        self._set_temperature(positive_weight)
        if self.bias is not None:
            self.bias.sub_(positive_weight)
        if self.query is not None:
            self._subtract_positives(positive_weight)
        self.positive_weight = positive_weight

    def add_stopped_positives(self, row_weight: Tensor, column_weight: Tensor) -> None:
        """Add the positives of both directions, each to the gradient of its query."""
        same_rows = self.blocked.same_rows
        self._set_temperature(row_weight if same_rows else row_weight + column_weight)
        if self.query is not None:
            self._subtract_positives(row_weight)
        self.positive_weight = None if same_rows else column_weight

    def result(self) -> Gradients:
        """The requested gradients, rows in the order of the caller."""
        requested, blocked = self.requested, self.blocked
        query, key, positive_key = self.query, None, None
        if self.columns is not None:
            key = self.columns.T.contiguous()
            self.columns = None
        if self.positive_weight is not None:
            scale = self.positive_weight / blocked.temperature
            if blocked.contrast.positive_key is not None and not blocked.contrast.symmetric:
                if requested.positive_key:
                    positive_key = blocked.query * -scale[:, None]
            elif key is not None:
                self._subtract_queries(key, scale)
        if key is not None and blocked.same_rows and query is not None:
            query = query.add_(key)
        return Gradients(
            query=blocked.unsorted(query) if requested.query and query is not None else None,
            key=blocked.unsorted(key, 1) if requested.key and key is not None else None,
            positive_key=_optional(blocked, positive_key),
            hard=self.hard,
            temperature=_optional(blocked, self.temperature),
            bias=self.bias,
        )

    def _subtract_queries(self, key: Tensor, scale: Tensor) -> None:
        """Through positives that are keys: queries times `scale` [N]."""
        blocked = self.blocked
        at = blocked.contrast.positive
        at = blocked.positive_rows if at is None else at
        for part in chunks(blocked.query):
            # Queries with the same positive are added in a fixed order.
            add_rows(key, at[part], blocked.query[part] * -scale[part, None])

    def _subtract_positives(self, positive_weight: Tensor) -> None:
        assert self.query is not None
        self.query.addcmul_(
            self.blocked.positives, (positive_weight / self.blocked.temperature)[:, None], value=-1
        )

    def _set_temperature(self, positive_weight: Tensor) -> None:
        """Scores are proportional to 1 / temperature: -sum of weight * score / temperature."""
        if not self.requested.temperature:
            return
        assert self.query is not None
        blocked, contrast = self.blocked, self.blocked.contrast
        negatives_part = (blocked.query * self.query).sum(dim=1)
        if self.columns is not None and (
            blocked.same_rows or (contrast.stopped and contrast.symmetric)
        ):
            negatives_part = negatives_part + (blocked.key.T * self.columns).sum(dim=0)
        if blocked.same_rows and not contrast.stopped:
            negatives_part = negatives_part / 2  # the sums of rows and columns have each pair
        similarity = blocked.positive * LOG2
        if contrast.bias is not None:
            similarity = similarity - contrast.bias.to(similarity.dtype)
        self.temperature = (positive_weight * similarity - negatives_part) / blocked.temperature


def _optional(blocked: BlockedContrast, x: Tensor | None) -> Tensor | None:
    return None if x is None else blocked.unsorted(x)


__all__ = ["GradientAccumulator"]

"""Gradients of a contrast while they grow, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Gradients, Wanted
from mmcl_fast.losses.torch_backend.matmul import product
from mmcl_fast.losses.torch_backend.score_blocks import Block, Work
from mmcl_fast.losses.torch_backend.softmax_passes import LOG2


@dataclass
class Accumulator:
    """Sums in the order of `work`; weights are dL/ds of the negatives.

    Attributes:
        query: [N, D], of the negatives until positives are added.
        columns: [D, M], of the negatives to the keys; of an own contrast a second part of the
            query's gradient.
        key: [M, D], of the positives that are keys.
        temperature: [N], filled with the positives.
    """

    work: Work
    wanted: Wanted
    query: Tensor | None
    columns: Tensor | None
    key: Tensor | None = None
    positive_key: Tensor | None = None
    hard: Tensor | None = None
    temperature: Tensor | None = None
    bias: Tensor | None = None

    @classmethod
    def of(cls, work: Work, wanted: Wanted) -> Accumulator:
        """Zeros for what is wanted, and for what the temperature's gradient is read off."""
        contrast, rows = work.contrast, work.query
        both_stopped = contrast.stopped and contrast.symmetric
        columns = wanted.key or work.own or (wanted.temperature and both_stopped)
        return cls(
            work,
            wanted,
            query=torch.zeros_like(rows) if wanted.query or wanted.temperature else None,
            columns=rows.new_zeros(rows.shape[1], len(work.key)) if columns else None,
            hard=rows.new_zeros(contrast.hard.shape)
            if wanted.hard and contrast.hard is not None
            else None,
            bias=rows.new_zeros(len(rows)) if wanted.bias else None,
        )

    def add_rows(self, block: Block, weights: Tensor, scale: Tensor | None) -> None:
        """Through `weights` [c, block], times `scale` [c], to the query."""
        if self.query is None:
            return
        part = product(weights, self.work.key_t(block))
        factor = 1.0 / self.work.temperature
        part.mul_(factor if scale is None else (scale * factor)[:, None])
        self.query[block.rows].add_(part)

    def add_columns(self, block: Block, weights: Tensor, scale: Tensor | None) -> None:
        """The same to the keys."""
        if self.columns is not None:
            self.columns[:, block.columns].add_(self.through_queries(block, weights, scale))

    def through_queries(self, block: Block, weights: Tensor, scale: Tensor | None = None) -> Tensor:
        """Mixtures of query / temperature, [D, block]."""
        queries = self.work.warm_t[:, block.rows]
        return product(queries if scale is None else queries * scale, weights.T)

    def add_hard(self, block: Block, weights: Tensor) -> None:
        """Through `weights` [c, K] of the rows' hard negatives."""
        if self.query is not None:
            part = torch.bmm(weights[:, None], self.work.hard(block))[:, 0]
            self.query[block.rows].add_(part / self.work.temperature)
        if self.hard is not None:
            queries = self.work.warm[block.rows, None]
            torch.mul(weights[:, :, None], queries, out=self.hard[block.rows])

    def add_bias(self, block: Block, weights: Tensor) -> None:
        """Row sums [c] of the weights."""
        assert self.bias is not None
        self.bias[block.rows] = weights

    def add_positives(self, pull: Tensor) -> None:
        """`pull` [N] = -dL/ds+ of two-sided gradients, or of one direction's; after all blocks."""
        self._read_temperature(pull)
        if self.bias is not None:
            self.bias.sub_(pull)
        if self.query is not None:
            self._pull_queries(pull)
        contrast, back = self.work.contrast, self.work.warm * -pull[:, None]
        if contrast.positive_key is not None:
            self.positive_key = back if self.wanted.positive_key else None
        elif self.columns is not None:
            at = self.work.positive_rows if contrast.positive is None else contrast.positive
            self.key = torch.zeros_like(self.work.key)
            # A key may be the positive of many queries: in a fixed order on every device.
            if self.key.device.type == "cpu":
                self.key.index_add_(0, at, back)  # row by row; index_put adds with threads
            else:
                self.key.index_put_((at,), back, accumulate=True)  # sorted; index_add is not

    def add_stopped_positives(self, row_pull: Tensor, column_pull: Tensor) -> None:
        """The pulls of both directions, each on its own query."""
        own = self.work.own
        self._read_temperature(row_pull if own else row_pull + column_pull)
        if self.query is not None:
            self._pull_queries(row_pull)
        if not own and self.columns is not None:
            # Halves of a symmetric contrast sort queries and keys alike.
            self.key = self.work.warm * -column_pull[:, None]

    def result(self) -> Gradients:
        """The wanted gradients in the caller's order."""
        wanted, work = self.wanted, self.work
        query, key = self.query, None
        if self.columns is not None:
            key = self.columns.T.contiguous()
            key = key if self.key is None else key.add_(self.key)
            if work.own and query is not None:
                query = query + key
        return Gradients(
            query=work.unsorted(query) if wanted.query and query is not None else None,
            key=work.unsorted(key, 1) if wanted.key and key is not None else None,
            positive_key=_optional(work, self.positive_key),
            hard=self.hard,
            temperature=_optional(work, self.temperature),
            bias=self.bias,
        )

    def _pull_queries(self, pull: Tensor) -> None:
        assert self.query is not None
        self.query.addcmul_(self.work.positives, (pull / self.work.temperature)[:, None], value=-1)

    def _read_temperature(self, pull: Tensor) -> None:
        """Scores scale with 1 / temperature, so this is -sum of weight * score / temperature."""
        if not self.wanted.temperature:
            return
        assert self.query is not None
        work, contrast = self.work, self.work.contrast
        through = (work.query * self.query).sum(dim=1)
        if self.columns is not None and (work.own or (contrast.stopped and contrast.symmetric)):
            through = through + (work.key.T * self.columns).sum(dim=0)
        if work.own and not contrast.stopped:
            through = through / 2  # every pair is in its row's and in its column's sum
        similarity = work.positive * LOG2
        if contrast.bias is not None:
            similarity = similarity - contrast.bias.to(similarity.dtype)
        self.temperature = (pull * similarity - through) / work.temperature


def _optional(work: Work, x: Tensor | None) -> Tensor | None:
    return None if x is None else work.unsorted(x)


__all__ = ["Accumulator"]

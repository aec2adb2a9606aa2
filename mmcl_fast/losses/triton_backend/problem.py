"""What a way of computing works on, what it returns, and the parts of a contrast it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_common import LOG2, Pairs
from mmcl_fast.kernels.contrast_gradient import Side
from mmcl_fast.kernels.contrast_row_losses import Settled
from mmcl_fast.kernels.contrast_statistics import Partial
from mmcl_fast.kernels.row_passes import row_dots_fwd
from mmcl_fast.losses.contrast import Contrast

Sides = tuple[Side | None, Side | None]  # of queries and of keys: whose terms count
Settle = Callable[[slice, Partial], Settled]  # partial results of some query rows to the whole


@dataclass(frozen=True)
class Work:
    """Features as the kernels take them, and the rest.

    Attributes:
        query: [N, D], stride 1 along D.
        key: [M, D], stride 1 along D; `query` itself in an own contrast.
        pairs: Negatives and units.
        own: Query and key are the same rows, and both their gradients are added up: every pair
            has two sides, and one product serves both.
    """

    query: Tensor
    key: Tensor
    pairs: Pairs
    own: bool

    @classmethod
    def of(cls, contrast: Contrast) -> Work:
        """From a contrast of at least one query and one key."""
        query = dense(contrast.query)
        key = query if contrast.key is None else dense(contrast.key)
        labels = contrast.labels
        if labels is not None:
            labels = labels[0].contiguous(), labels[1].contiguous()
        indexed = contrast.positive
        in_keys = None if contrast.positive_key is not None else "diagonal"
        bias = contrast.bias
        pairs = Pairs(
            temperature=contrast.temperature.to(query.device, torch.float32),
            bias=None if bias is None else bias.to(query.device, torch.float32),
            positive=in_keys if indexed is None else indexed.contiguous(),
            labels=labels,
            exclude_self=contrast.exclude_self,
            extra=contrast.extra,
            sigmoid=contrast.form == "sigmoid",
        )
        return cls(query, key, pairs, contrast.key is None and not contrast.stopped)

    def mirrored(self) -> Work:
        """The other direction of a symmetric contrast: keys look for their queries."""
        labels = self.pairs.labels
        if labels is not None:
            labels = labels[1], labels[0]
        return replace(
            self, query=self.key, key=self.query, pairs=replace(self.pairs, labels=labels)
        )

    def scores(self, dots: Tensor) -> Tensor:
        """Scores x, in units of log 2, of products <q, k>; as `kernels/contrast_common.py`."""
        scores: Tensor = dots * (1.0 / LOG2 / self.pairs.temperature)
        return scores if self.pairs.bias is None else scores + self.pairs.bias / LOG2

    def paired_scores(self, features: Tensor, rows: slice) -> Tensor:
        """Scores of query rows with rows of `features` [N, D] or [N, K, D]: [n] or [n, K]."""
        query, features = self.query[rows], features[rows]
        if features.ndim == 2:
            return self.scores(row_dots_fwd(query, dense(features)))
        return self.scores(row_dots(query.float()[:, None], features))


class Sums(NamedTuple):
    """Weighted sums over negatives; float32, in parts to be added up."""

    query: Tensor | None = None  # [P, N, D]
    key: Tensor | None = None  # [P, M, D]
    weights: Tensor | None = None  # [N]
    # [P, N], [P, M]: parts are mixtures with weights 2^(x - top), to be scaled.
    query_tops: Tensor | None = None
    key_tops: Tensor | None = None


class Engine(Protocol):
    """A way of computing: `fused` for features that fit into registers, `chunked` for others."""

    def statistics(
        self, work: Work, *, columns: bool, keep: bool = False
    ) -> tuple[Partial, Partial | None]:
        """Partial statistics of rows and columns; of an own contrast both are of the rows.

        keep: `gradient` of the same engine and work follows, once.
        """

    def one_way(
        self, work: Work, settle: Settle, *, query: bool, key: bool
    ) -> tuple[Settled, Sums]:
        """What `settle` makes of the rows, and sums weighted by them alone."""

    def gradient(
        self, work: Work, query: Sides | None, key: Sides | None, *, weights: bool
    ) -> Sums:
        """Sums with the weights of given sides, for those that are not None."""


def dense(x: Tensor) -> Tensor:
    """`x`, or a copy, with neighbouring features neighbours in memory."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def row_dots(a: Tensor, b: Tensor) -> Tensor:
    """<a_i, b_i>, float32; [..., D] each."""
    return torch.mul(a, b.float()).sum(dim=-1)


__all__ = ["Engine", "Settle", "Sides", "Sums", "Work", "dense", "row_dots"]

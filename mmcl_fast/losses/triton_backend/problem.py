"""Inputs and results of the algorithms, which handle negatives that are keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_common import LOG2, Pairs, WeightTerms
from mmcl_fast.kernels.contrast_row_losses import RowLosses
from mmcl_fast.kernels.contrast_statistics import Partial
from mmcl_fast.kernels.row_passes import row_dots_fwd
from mmcl_fast.losses.contrast import Contrast

# Terms of the queries and of the keys; None: the weights have no such term.
WeightPair = tuple[WeightTerms | None, WeightTerms | None]
# From partial statistics of some query rows to their losses.
Finalize = Callable[[slice, Partial], RowLosses]


@dataclass(frozen=True)
class KernelInputs:
    """A contrast in the layout of the kernels.

    Attributes:
        query: [N, D], stride 1 along D.
        key: [M, D], stride 1 along D; `query` itself without `Contrast.key`.
        pairs: Negatives, temperature and bias.
        same_rows: Query and key are the same rows, whose two gradients are added: each pair counts
            for its row and its column, and one product serves both.
    """

    query: Tensor
    key: Tensor
    pairs: Pairs
    same_rows: bool

    @classmethod
    def of(cls, contrast: Contrast) -> KernelInputs:
        """From a contrast of at least one query and one key."""
        query = dense(contrast.query)
        key = query if contrast.key is None else dense(contrast.key)
        labels = contrast.labels
        if labels is not None:
            labels = labels[0].contiguous(), labels[1].contiguous()
        indexed = contrast.positive
        default = None if contrast.positive_key is not None else "diagonal"
        bias = contrast.bias
        pairs = Pairs(
            temperature=contrast.temperature.to(query.device, torch.float32),
            bias=None if bias is None else bias.to(query.device, torch.float32),
            positive=default if indexed is None else indexed.contiguous(),
            labels=labels,
            exclude_self=contrast.exclude_self,
            extra=contrast.extra,
            sigmoid=contrast.form == "sigmoid",
        )
        return cls(query, key, pairs, contrast.key is None and not contrast.stopped)

    def mirrored(self) -> KernelInputs:
        """The other direction of a symmetric contrast: query and key exchanged."""
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


class WantedSums(NamedTuple):
    """Which sums over negatives are wanted, by the terms of their weights; None: not this one."""

    query: WeightPair | None = None
    key: WeightPair | None = None
    weights: bool = False  # of each query


class NegativeSums(NamedTuple):
    """Weighted sums over negatives; float32, in parts to be added up."""

    query: Tensor | None = None  # [P, N, D]
    key: Tensor | None = None  # [P, M, D]
    weights: Tensor | None = None  # [N]
    # [P, N], [P, M]: the maxima of parts whose weights are 2^(x - maximum), without scale.
    query_max: Tensor | None = None
    key_max: Tensor | None = None


class Algorithm(Protocol):
    """`fused` for features that fit into registers, `chunked` for longer ones."""

    def statistics(
        self, inputs: KernelInputs, *, columns: bool, keep: bool = False
    ) -> tuple[Partial, Partial | None]:
        """Partial statistics of rows and columns; with `same_rows` both are of the rows.

        keep: `gradient` will be called once with the same inputs, and may use kept scores.
        """

    def one_way(
        self, inputs: KernelInputs, finalize: Finalize, *, query: bool, key: bool
    ) -> tuple[RowLosses, NegativeSums]:
        """Losses by `finalize`, and sums with the weights of the rows alone."""

    def gradient(self, inputs: KernelInputs, wanted: WantedSums) -> NegativeSums:
        """Weighted sums over the negatives."""


def dense(x: Tensor) -> Tensor:
    """`x`, or a copy, with stride 1 along the last axis."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def row_dots(a: Tensor, b: Tensor) -> Tensor:
    """<a_i, b_i>, float32; [..., D] each."""
    return torch.mul(a, b.float()).sum(dim=-1)


__all__ = [
    "Algorithm",
    "Finalize",
    "KernelInputs",
    "NegativeSums",
    "WantedSums",
    "WeightPair",
    "dense",
    "row_dots",
]

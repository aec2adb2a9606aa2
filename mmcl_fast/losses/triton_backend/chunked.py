"""Contrasts of long features: scores of a chunk of query rows in memory, weights by kernels.

Numerics contract: products of 16-bit features are summed and kept in float32. Products of float32
features are torch's: IEEE unless `torch.backends.cuda.matmul` is set otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_common import WeightTerms
from mmcl_fast.kernels.contrast_row_losses import RowLosses, RowTerms
from mmcl_fast.kernels.contrast_score_statistics import scores_statistics_fwd
from mmcl_fast.kernels.contrast_score_weights import scores_weights_bwd
from mmcl_fast.kernels.contrast_statistics import Partial, merged
from mmcl_fast.losses.triton_backend.problem import (
    Finalize,
    KernelInputs,
    NegativeSums,
    WantedSums,
    WeightPair,
)

WORKSPACE = 2**28  # scores at a time: 1 GiB, and half as much for 16-bit weights
MAX_KEPT = 2**29  # scores of the first sweep that are kept for the second: 2 GiB
MIN_ROWS = 1024  # with fewer query rows the sum of key gradients is bound by memory traffic
_VECTOR = 16  # rows of products are a multiple of this, for loads of whole vectors
UNSHIFT = {torch.float16: 2.0**-14}  # inverse of the factor in the kernel's float16 weights


@dataclass
class Chunked:
    """See `Algorithm`.

    Cost in products of 2*N*M*D flop: statistics 1; one-way losses with gradients, or gradients from
    statistics, 1 and 1 for each gradient, and 1 more if query and key have different terms. The
    last scores of `statistics` are kept, which saves their product in `gradient`.

    Attributes:
        kept: Scores by the first row of their chunk.
    """

    kept: dict[int, Tensor] = field(default_factory=dict)

    def statistics(
        self, inputs: KernelInputs, *, columns: bool, keep: bool = False
    ) -> tuple[Partial, Partial | None]:
        """See `Algorithm`."""
        rows: list[Partial] = []
        column_parts: list[Partial | None] = []
        key = padded(inputs.key)
        for part in chunks(inputs):
            row, column = self._partial(inputs, part, key, columns=columns, keep=keep)
            rows.append(row)
            column_parts.append(column)
            if len(inputs.query) > part.stop - part.start:  # bounds the memory of partial results
                rows[-1] = merged(row)
                column_parts[-1] = None if column is None else merged(column)
        if len(rows) == 1:
            return rows[0], column_parts[0]
        columns_of = [x for x in column_parts if x is not None]
        return _concatenated(rows, 1), _concatenated(columns_of, 0) if columns_of else None

    def _partial(
        self, inputs: KernelInputs, part: slice, key: Tensor, *, columns: bool, keep: bool
    ) -> tuple[Partial, Partial | None]:
        """Partial statistics of a chunk."""
        scores = product(inputs.query[part], key.T)
        pairs = inputs.pairs.part(part.start, part.stop)
        if keep and (len(inputs.query) - part.start) * scores.shape[1] <= MAX_KEPT:
            self.kept[part.start] = scores
        statistics: tuple[Partial, Partial | None] = scores_statistics_fwd(
            scores, len(inputs.key), pairs, columns=columns
        )
        return statistics

    def one_way(
        self, inputs: KernelInputs, finalize: Finalize, *, query: bool, key: bool
    ) -> tuple[RowLosses, NegativeSums]:
        """See `Algorithm`."""
        parts = []
        weights = query and inputs.pairs.sigmoid  # for the gradient of the bias
        sums = Accumulator.of(inputs, query=query, key=key, weights=weights)
        for part in chunks(inputs):
            scores = product(inputs.query[part], sums.padded.T)
            pairs = inputs.pairs.part(part.start, part.stop)
            partial, _ = scores_statistics_fwd(scores, len(inputs.key), pairs, columns=False)
            row_losses = finalize(part, partial)
            parts.append(row_losses)
            terms = WeightTerms(row_losses.rows.max_score, row_losses.rows.scale)
            sums.add(part, scores, (terms, None), query=query, key=key)
        return parts[0] if len(parts) == 1 else _concatenated_losses(parts), sums.result()

    def gradient(self, inputs: KernelInputs, wanted: WantedSums) -> NegativeSums:
        """See `Algorithm`."""
        query, key, weights = wanted
        sums = Accumulator.of(inputs, query=query is not None, key=key is not None, weights=weights)
        # Kept scores first: they leave no memory for others.
        for part in sorted(chunks(inputs), key=lambda part: part.start not in self.kept):
            if query is not None:
                scores = self._scores(inputs, part, sums.padded)
                sums.add(part, scores, rows_of(query, part), query=True, key=key is query)
                del scores
            if key is not None and key is not query:
                scores = self._scores(inputs, part, sums.padded)
                sums.add(part, scores, rows_of(key, part), query=False, key=True)
                del scores
        return sums.result()

    def _scores(self, inputs: KernelInputs, part: slice, key: Tensor) -> Tensor:
        """Scores of a chunk, from those kept; the caller may overwrite them."""
        kept = self.kept.pop(part.start, None)
        return product(inputs.query[part], key.T) if kept is None else kept


@dataclass(frozen=True)
class Accumulator:
    """Gradient sums over chunks of query rows."""

    inputs: KernelInputs
    padded: Tensor  # the keys, [P, D], zero from row M on
    query: Tensor | None
    key: Tensor | None
    weights: Tensor | None

    @classmethod
    def of(cls, inputs: KernelInputs, *, query: bool, key: bool, weights: bool) -> Accumulator:
        """Empty sums for the requested gradients."""
        keys = padded(inputs.key)
        rows = inputs.query.new_empty(inputs.query.shape, dtype=torch.float32) if query else None
        columns = inputs.query.new_empty(keys.shape, dtype=torch.float32) if key else None
        if columns is not None and not _is_one_chunk(inputs):
            columns.zero_()
        sums = inputs.query.new_empty(len(inputs.query), dtype=torch.float32) if weights else None
        return cls(inputs, keys, rows, columns, sums)

    def add(self, part: slice, scores: Tensor, pair: WeightPair, *, query: bool, key: bool) -> None:
        """Add the part of a chunk; overwrites `scores` if they have the features' dtype."""
        dtype = self.inputs.query.dtype
        weights = scores if dtype == torch.float32 else torch.empty_like(scores, dtype=dtype)
        pairs = self.inputs.pairs.part(part.start, part.stop)
        requested = query and self.weights is not None
        sums = scores_weights_bwd(
            scores, weights, len(self.inputs.key), pairs, pair, weight_sum=requested
        )
        self.add_weights(part, weights, sums, query=query, key=key)

    def add_weights(
        self, part: slice, weights: Tensor, sums: Tensor | None, *, query: bool, key: bool
    ) -> None:
        """Add the part of a chunk, from its weights [n, P] and their row sums."""
        if query and self.query is not None:
            product(weights, self.padded, self.query[part])
            if self.weights is not None and sums is not None:
                self.weights[part] = sums
        if key and self.key is not None:
            add = _set_product if _is_one_chunk(self.inputs) else add_product
            add(self.key, weights.T, self.inputs.query[part])

    def result(self) -> NegativeSums:
        """All sums, without the padding of the keys."""
        back = UNSHIFT.get(self.inputs.query.dtype, 1.0)
        if back != 1.0:
            for x in (self.query, self.key):
                if x is not None:
                    x.mul_(back)
        key = None if self.key is None else self.key[None, : len(self.inputs.key)]
        return NegativeSums(None if self.query is None else self.query[None], key, self.weights)


def _concatenated(parts: list[Partial], dim: int) -> Partial:
    """Partial results, concatenated along a dimension."""
    columns = zip(*parts, strict=True)
    return Partial(*(None if x[0] is None else torch.cat(x, dim=dim) for x in columns))


def _concatenated_losses(parts: list[RowLosses]) -> RowLosses:
    """Losses and terms of all chunks."""
    terms = zip(*(part.rows for part in parts), strict=True)
    losses = torch.cat([part.losses for part in parts])
    return RowLosses(losses, RowTerms(*(torch.cat(x) for x in terms)), None)


def chunks(inputs: KernelInputs) -> Iterator[slice]:
    """Query rows at a time: a function of the sizes alone, so results do not vary."""
    n, size = len(inputs.query), _chunk_rows(inputs)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _chunk_rows(inputs: KernelInputs) -> int:
    return max(MIN_ROWS, WORKSPACE // len(inputs.key))


def _is_one_chunk(inputs: KernelInputs) -> bool:
    """Whether one chunk holds all rows, and no sum over chunks is needed."""
    return len(inputs.query) <= _chunk_rows(inputs)


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """The matrix product in float32, for factors of any dtype; into `out` if given."""
    if a.dtype == torch.float32:
        return torch.mm(a, b, out=out)
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32, out=out)
    return torch.mm(a.float(), b.float(), out=out)  # torch has `out_dtype` on CUDA only


def _set_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    product(a, b, into)


def add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds the matrix product in place, in float32."""
    if a.dtype == torch.float32:
        into.addmm_(a, b)
    elif a.is_cuda:
        torch.addmm(into, a, b, out_dtype=torch.float32, out=into)
    else:
        into.add_(product(a, b))


def padded(key: Tensor) -> Tensor:
    """Keys, padded with rows of zeros to whole vectors of scores."""
    padding = -len(key) % _VECTOR
    return key if not padding else torch.nn.functional.pad(key, (0, 0, 0, padding))


def rows_of(pair: WeightPair, part: slice) -> WeightPair:
    """The terms of a chunk."""
    rows, columns = pair
    return None if rows is None else WeightTerms(rows.max_score[part], rows.scale[part]), columns


__all__ = ["MAX_KEPT", "MIN_ROWS", "UNSHIFT", "Accumulator", "Chunked", "add_product", "chunks"]
__all__ += ["padded", "product", "rows_of"]

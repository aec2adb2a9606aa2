"""Long features: products of a chunk of query rows in memory, made into weights by kernels.

Numerics contract: products of 16-bit features are summed and kept in float32. Products of float32
features are torch's: IEEE unless `torch.backends.cuda.matmul` was told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmcl_fast.kernels.contrast_gradient import Side
from mmcl_fast.kernels.contrast_row_losses import Settled, Terms
from mmcl_fast.kernels.contrast_score_statistics import scores_statistics_fwd
from mmcl_fast.kernels.contrast_score_weights import scores_weights_bwd
from mmcl_fast.kernels.contrast_statistics import Partial, merged
from mmcl_fast.losses.triton_backend.problem import Settle, Sides, Sums, Work

WORKSPACE = 2**28  # scores at a time: 1 GiB, and half as much for 16-bit weights
KEPT = 2**29  # scores of a first look that wait for the second: 2 GiB
MIN_ROWS = 1024  # fewer query rows would make the sum of key gradients a matter of memory traffic
_VECTOR = 16  # rows of products are a multiple of this, for loads of whole vectors
_SHIFT = {torch.float16: 2.0**-14}  # undoes that of the kernel's float16 weights


@dataclass
class Chunked:
    """See `Engine`.

    Cost in products of 2*N*M*D flop: statistics 1, one-way losses with gradients 1 and 1 for each
    of them, gradients from statistics the same; if the sides that count differ, 1 product for each.
    The last scores that statistics were made of are kept for gradients, which save their product.

    Attributes:
        kept: Scores by the first row of their chunk.
    """

    kept: dict[int, Tensor] = field(default_factory=dict)

    def statistics(
        self, work: Work, *, columns: bool, keep: bool = False
    ) -> tuple[Partial, Partial | None]:
        """See `Engine`."""
        rows: list[Partial] = []
        others: list[Partial | None] = []
        key = padded(work.key)
        for part in chunks(work):
            scores = product(work.query[part], key.T)
            pairs = work.pairs.part(part.start, part.stop)
            row, other = scores_statistics_fwd(scores, len(work.key), pairs, columns=columns)
            rows.append(row)
            others.append(other)
            if keep and (len(work.query) - part.start) * scores.shape[1] <= KEPT:
                self.kept[part.start] = scores
            del scores  # before there are the next
            if len(work.query) > part.stop - part.start:  # the partial results of all were many
                rows[-1], others[-1] = merged(row), None if other is None else merged(other)
        if len(rows) == 1:
            return rows[0], others[0]
        found = [x for x in others if x is not None]
        return _joined(rows, 1), _joined(found, 0) if found else None

    def one_way(
        self, work: Work, settle: Settle, *, query: bool, key: bool
    ) -> tuple[Settled, Sums]:
        """See `Engine`."""
        parts = []
        weights = query and work.pairs.sigmoid  # only a bias takes them
        sums = _Accumulator.of(work, query=query, key=key, weights=weights)
        for part in chunks(work):
            scores = product(work.query[part], sums.padded.T)
            pairs = work.pairs.part(part.start, part.stop)
            partial, _ = scores_statistics_fwd(scores, len(work.key), pairs, columns=False)
            settled = settle(part, partial)
            parts.append(settled)
            side = Side(settled.rows.top, settled.rows.scale)
            sums.add(part, scores, (side, None), query=query, key=key)
        return parts[0] if len(parts) == 1 else _together(parts), sums.result()

    def gradient(
        self, work: Work, query: Sides | None, key: Sides | None, *, weights: bool
    ) -> Sums:
        """See `Engine`."""
        sums = _Accumulator.of(work, query=query is not None, key=key is not None, weights=weights)
        # Kept scores first: there is no room beside them for others.
        for part in sorted(chunks(work), key=lambda part: part.start not in self.kept):
            if query is not None:
                scores = self._scores(work, part, sums.padded)
                sums.add(part, scores, _cut(query, part), query=True, key=key is query)
                del scores
            if key is not None and key is not query:
                scores = self._scores(work, part, sums.padded)
                sums.add(part, scores, _cut(key, part), query=False, key=True)
                del scores
        return sums.result()

    def _scores(self, work: Work, part: slice, key: Tensor) -> Tensor:
        """Those kept, once: they will be overwritten."""
        kept = self.kept.pop(part.start, None)
        return product(work.query[part], key.T) if kept is None else kept


@dataclass(frozen=True)
class _Accumulator:
    """Gradient sums while chunks go by."""

    work: Work
    padded: Tensor  # the keys, [P, D], zero from row M on
    query: Tensor | None
    key: Tensor | None
    weights: Tensor | None

    @classmethod
    def of(cls, work: Work, *, query: bool, key: bool, weights: bool) -> _Accumulator:
        keys = padded(work.key)
        rows = work.query.new_empty(work.query.shape, dtype=torch.float32) if query else None
        columns = work.query.new_empty(keys.shape, dtype=torch.float32) if key else None
        if columns is not None and not _at_once(work):
            columns.zero_()
        sums = work.query.new_empty(len(work.query), dtype=torch.float32) if weights else None
        return cls(work, keys, rows, columns, sums)

    def add(self, part: slice, scores: Tensor, sides: Sides, *, query: bool, key: bool) -> None:
        """Add a chunk's share; overwrites `scores` if they are of the features' dtype."""
        dtype = self.work.query.dtype
        weights = scores if dtype == torch.float32 else torch.empty_like(scores, dtype=dtype)
        pairs = self.work.pairs.part(part.start, part.stop)
        wanted = query and self.weights is not None
        sums = scores_weights_bwd(scores, weights, len(self.work.key), pairs, sides, sums=wanted)
        if query and self.query is not None:
            product(weights, self.padded, self.query[part])
            if self.weights is not None and sums is not None:
                self.weights[part] = sums
        if key and self.key is not None:
            add = _set_product if _at_once(self.work) else add_product
            add(self.key, weights.T, self.work.query[part])

    def result(self) -> Sums:
        """All sums, without what pads the keys."""
        back = _SHIFT.get(self.work.query.dtype, 1.0)
        if back != 1.0:
            for x in (self.query, self.key):
                if x is not None:
                    x.mul_(back)
        key = None if self.key is None else self.key[None, : len(self.work.key)]
        return Sums(None if self.query is None else self.query[None], key, self.weights)


def _joined(parts: list[Partial], dim: int) -> Partial:
    """Partial results one after another along a dimension."""
    columns = zip(*parts, strict=True)
    return Partial(*(None if x[0] is None else torch.cat(x, dim=dim) for x in columns))


def _together(parts: list[Settled]) -> Settled:
    """One direction's rows, chunk after chunk."""
    terms = zip(*(part.rows for part in parts), strict=True)
    losses = torch.cat([part.losses for part in parts])
    return Settled(losses, Terms(*(torch.cat(x) for x in terms)), None)


def chunks(work: Work) -> Iterator[slice]:
    """Query rows handled at a time: by the sizes alone, so results never vary."""
    n, size = len(work.query), _chunk_rows(work)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _chunk_rows(work: Work) -> int:
    return max(MIN_ROWS, WORKSPACE // len(work.key))


def _at_once(work: Work) -> bool:
    """Whether one chunk holds all rows, so that nothing needs to be added up."""
    return len(work.query) <= _chunk_rows(work)


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """The matrix product, in float32 whatever the factors are; `out` takes it if given."""
    if a.dtype == torch.float32:
        return torch.mm(a, b, out=out)
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32, out=out)
    return torch.mm(a.float(), b.float(), out=out)  # torch has that product on CUDA alone


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
    """Keys, and rows of zeros such that a product with them has whole vectors."""
    missing = -len(key) % _VECTOR
    return key if not missing else torch.nn.functional.pad(key, (0, 0, 0, missing))


def _cut(sides: Sides, part: slice) -> Sides:
    rows, columns = sides
    return None if rows is None else Side(rows.top[part], rows.scale[part]), columns


__all__ = ["MIN_ROWS", "Chunked", "add_product", "chunks", "padded", "product"]

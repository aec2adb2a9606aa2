"""The scores of a contrast, block by block, in a workspace of fixed size.

A block is a range of query rows and a contiguous range of keys. The blocks depend on the problem
alone:

    plain     every query row against every key
    same rows query and key are the same rows: scores are symmetric, so only blocks on and above the
              diagonal are computed, and each serves its rows and its columns
    halves    two labels, negatives of the other label: rows sorted by label, only the two
              off-diagonal blocks; one of them alone where query and key are the same rows
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from mmcl_fast.losses.class_sums import chunks
from mmcl_fast.losses.contrast import Contrast
from mmcl_fast.losses.torch_backend.matmul import product
from mmcl_fast.losses.torch_backend.softmax_passes import LOG2, masked

Labels = tuple[Tensor, Tensor]

# `python -m bench.cpu.choices` times other values of both.
_BLOCK = 2**20  # scores computed at a time: 4 MiB of float32
_MIN_ROWS = 128  # below this a matrix product loses speed
_EXACT_CODES = 2**24  # of float32
_HELD = 2**22  # scores of the first sweep that are kept for the second: 16 MiB of float32


def chunk_rows(n: int, m: int) -> int:
    """Query rows at a time: a function of the sizes alone, so results do not vary."""
    return max(1, min(n, max(_MIN_ROWS, _BLOCK // max(m, 1))))


class Block(NamedTuple):
    """Query rows `start` to `stop` against keys `left` to `right`."""

    start: int
    stop: int
    left: int
    right: int
    # On the diagonal of a contrast of the same rows: it holds both (i, j) and (j, i).
    square: bool = False

    @property
    def rows(self) -> slice:
        """The query rows."""
        return slice(self.start, self.stop)

    @property
    def columns(self) -> slice:
        """The keys."""
        return slice(self.left, self.right)

    @property
    def size(self) -> int:
        """Number of scores."""
        return (self.stop - self.start) * (self.right - self.left)


@dataclass
class BlockedContrast:
    """A contrast in its compute dtype, sorted by label where that saves blocked.

    Attributes:
        contrast: The problem.
        query: [N, D], contiguous.
        key: [M, D], contiguous; `query` itself without `Contrast.key`.
        temperature: 0-d.
        same_rows: Query and key are the same rows, and blocks use the symmetry.
        codes: Labels as small integers, where blocks are masked by label.
        order: Of the query rows and of the keys, if sorted by label.
        split: Numbers of queries and keys with the first of two labels, if sorted.
        positive: [N], the positives' scores in units of log 2; where positives are keys, set when
            their block is computed.
    """

    contrast: Contrast
    query: Tensor
    key: Tensor
    temperature: Tensor
    same_rows: bool
    codes: Labels | None = None
    order: Labels | None = None
    split: tuple[int, int] | None = None
    held: dict[Block, Tensor] = field(default_factory=dict)
    transposed: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, contrast: Contrast) -> BlockedContrast:
        """From a contrast whose tensors are on one device."""
        dtype = contrast.dtype
        temperature = contrast.temperature.to(dtype)
        codes = None if contrast.labels is None else label_codes(*contrast.labels, dtype)
        query = contrast.query.to(dtype)
        key = query if contrast.key is None else contrast.key.to(dtype)
        if codes is not None and _has_halves(contrast, codes):
            orders = codes[0].argsort(stable=True), codes[1].argsort(stable=True)
            split = int((codes[0] == 0).sum()), int((codes[1] == 0).sum())
            # index_select: indexing by brackets is slower on some processors.
            query, same_rows = query.index_select(0, orders[0]), contrast.key is None
            key = query if same_rows else key.index_select(0, orders[1])
            return cls(contrast, query, key, temperature, same_rows, None, orders, split)
        query = query.contiguous()
        key = query if contrast.key is None else key.contiguous()
        same_rows = contrast.key is None and not contrast.stopped
        return cls(contrast, query, key, temperature, same_rows, codes)

    def scaled(self, part: slice) -> Tensor:
        """Query rows, [c, D], scaled so that products with keys are scores in units of log 2."""
        return self.query[part] / (self.temperature * LOG2)

    def query_over_temperature_t(self, part: slice) -> Tensor:
        """Query rows / temperature, [D, c], contiguous; keys' gradients are sums of its columns."""
        return (self.query[part] / self.temperature).T.contiguous()

    def key_t(self, block: Block) -> Tensor:
        """The keys of a block as [D, columns]; contiguous where many blocks share them."""
        keys = self.key[block.columns]
        if self.same_rows and self.split is None:
            return keys.T
        at = block.left, block.right
        if at not in self.transposed:
            self.transposed[at] = keys.T.contiguous()
        return self.transposed[at]

    @cached_property
    def positives(self) -> Tensor:
        """The positives' features, [N, D]."""
        contrast = self.contrast
        if contrast.positive_key is not None:
            return self.sorted_rows(contrast.positive_key.to(self.key.dtype))
        if contrast.positive is not None:
            return self.key.index_select(0, contrast.positive)
        if self.order is None:
            return self.key[: len(self.query)]
        return self.key.index_select(0, self.positive_rows)

    @cached_property
    def positive_rows(self) -> Tensor:
        """Key of each query's positive, [N], where that is row i of the caller's keys."""
        rows = torch.arange(len(self.query), device=self.query.device)
        if self.order is None:
            return rows
        return self.positions[1].index_select(0, self.order[0])

    @cached_property
    def positions(self) -> Labels:
        """Sorted position of each of the caller's query rows and keys."""
        assert self.order is not None
        return self.order[0].argsort(), self.order[1].argsort()

    @cached_property
    def positive(self) -> Tensor:
        """See the class."""
        if self._positives_are_in_blocks:
            return self.query.new_empty(len(self.query))
        positive = torch.cat(
            [(self.scaled(part) * self.positives[part]).sum(dim=1) for part in chunks(self.query)]
            or [self.query.new_empty(0)]
        )
        bias = self.contrast.bias
        return positive if bias is None else positive.add_(bias.to(positive.dtype) / LOG2)

    @property
    def _positives_are_in_blocks(self) -> bool:
        return self.contrast.positive_key is None and self.split is None

    def hard(self, block: Block) -> Tensor:
        """Features of the hard negatives of a block's rows, [c, K, D]."""
        assert self.contrast.hard is not None
        return self.contrast.hard[block.rows].to(self.key.dtype)

    def hard_scores(self, block: Block) -> Tensor:
        """Their scores, [c, K], a new tensor; masks padding."""
        scores = torch.bmm(self.hard(block), self.scaled(block.rows)[:, :, None])[:, :, 0]
        padding = self.contrast.hard_padding(block.rows)
        return scores if padding is None else scores.masked_fill_(padding, masked(scores.dtype))

    def sorted_rows(self, x: Tensor) -> Tensor:
        """Rows of the query side in the order of `query`."""
        return x if self.order is None else x.index_select(0, self.order[0])

    def unsorted(self, x: Tensor, side: int = 0) -> Tensor:
        """Rows in the order of the caller; `side` 1 for keys."""
        return x if self.order is None else x.index_select(0, self.positions[side])

    def blocks(self) -> Iterator[Block]:
        """All blocks, in a fixed order; a plain or half block has all keys of its rows."""
        n, m = len(self.query), len(self.key)
        if self.split is None:
            if self.same_rows:
                yield from _triangle(n)
            else:
                hard = self.contrast.hard
                extra_elements = 0 if hard is None else hard.shape[1] * hard.shape[2]
                yield from _stripes(Block(0, n, 0, m), extra_elements)
            return
        rows, columns = self.split
        yield from _stripes(Block(0, rows, columns, m))
        if not self.same_rows:
            yield from _stripes(Block(rows, n, 0, columns))

    def scores(self, block: Block, *, hold: bool = False) -> Tensor:
        """Scores of a block, a new tensor: masks other pairs than negatives, sets `positive`.

        Args:
            block: One of `blocks()`.
            hold: Keep the tensor for the second call, within a memory budget; the caller must then
                not overwrite it before that.
        """
        if block in self.held:
            return self.held.pop(block)
        scores = product(self.scaled(block.rows), self.key[block.columns])
        if block.square:  # one rounding of a score serves both its rows
            scores.triu_().add_(scores.triu(1).T)
        if self.contrast.bias is not None:
            scores.add_(self.contrast.bias.to(scores.dtype) / LOG2)
        self._take_positives(scores, block)
        if self.contrast.exclude_self and self.split is None:
            self._diagonal(scores, block).fill_(masked(scores.dtype))
        self._mask_labels(scores, block)
        if self.contrast.pairwise is not None:
            self._mask_pairs(scores, block)
        if hold:
            self._hold(block, scores)
        return scores

    def _take_positives(self, scores: Tensor, block: Block) -> None:
        # From the product, not from a dot product: equal rows get exactly equal scores.
        if not self._positives_are_in_blocks:
            return
        no_negative = masked(scores.dtype)
        if self.contrast.positive is None:
            diagonal = self._diagonal(scores, block)
            self.positive[block.rows] = diagonal
            diagonal.fill_(no_negative)
            return
        at = self.contrast.positive[block.rows]
        if not self.same_rows:
            at = at[:, None]
            self.positive[block.rows] = scores.gather(1, at).squeeze(1)
            scores.scatter_(1, at, no_negative)
            return
        row = torch.nonzero((at >= block.left) & (at < block.right)).squeeze(1)
        column = at[row] - block.left
        positive = scores[row, column]
        self.positive[block.start + row] = positive
        self.positive[at[row]] = positive  # `Contrast.positive` is its own inverse
        scores[row, column] = no_negative

    def _mask_labels(self, scores: Tensor, block: Block) -> None:
        if self.codes is None:
            return
        # Float comparison and add: a boolean mask costs more on a CPU (`python -m
        # bench.cpu.choices`).
        rows, columns = self.codes
        labelled = scores[:, : len(columns)]
        same = torch.eq(rows[block.rows, None], columns[None, :], out=torch.empty_like(labelled))
        labelled.add_(same, alpha=masked(scores.dtype))

    def _mask_pairs(self, scores: Tensor, block: Block) -> None:
        assert self.contrast.pairwise is not None
        regular = slice(block.left, min(block.right, len(self.key) - self.contrast.extra))
        excluded = self.contrast.pairwise.excluded_block(block.rows, regular, scores.device)
        if excluded is not None:
            scores[:, : excluded.shape[1]].masked_fill_(excluded, masked(scores.dtype))

    def _diagonal(self, scores: Tensor, block: Block) -> Tensor:
        """The entries (i, i) of a block, possibly none."""
        if block.left > block.start:
            return scores[:0, 0]
        regular = len(self.key) - self.contrast.extra - block.left
        return scores[:, :regular].diagonal(block.start - block.left)

    def _hold(self, block: Block, scores: Tensor) -> None:
        self.held[block] = scores
        # The second sweep goes backwards, so the latest blocks are needed first.
        while sum(b.size for b in self.held) > max(_HELD, block.size):
            del self.held[next(iter(self.held))]


def label_codes(rows: Tensor, columns: Tensor, dtype: torch.dtype) -> Labels:
    """Labels as 0, 1, 2, ..., in `dtype` where that is exact; no wait for the device."""
    both = torch.cat([rows, columns])
    ordered, order = both.sort()
    if len(both) > _EXACT_CODES:
        dtype = torch.int64  # slower to compare
    codes = torch.zeros(len(both), dtype=dtype, device=both.device)
    codes[order[1:]] = (ordered[1:] != ordered[:-1]).cumsum(0).to(dtype)
    return codes[: len(rows)], codes[len(rows) :]


def _has_halves(contrast: Contrast, codes: Labels) -> bool:
    """Whether all negatives lie in the off-diagonal blocks of two labels, unmasked."""
    rows, columns = codes
    n = len(rows)
    if contrast.query.device.type != "cpu":  # reading labels would wait for the device
        return False
    if contrast.extra or contrast.hard is not None or contrast.pairwise is not None:
        return False
    if not len(columns):
        return False
    if float(max(rows.max() if n else 0.0, columns.max())) > 1:
        return False
    if contrast.positive is not None:
        return False
    # A positive that is a key, and row i itself, must be excluded by their label.
    no_diagonal = contrast.positive_key is not None and not contrast.exclude_self
    return no_diagonal or torch.equal(rows, columns[:n])


def _stripes(whole: Block, extra_elements: int = 0) -> Iterator[Block]:
    """A block in chunks of rows, with memory for `extra_elements` a row beside the scores."""
    n, m = whole.stop - whole.start, whole.right - whole.left
    size = chunk_rows(n, m + extra_elements)
    for start in range(whole.start, whole.stop, size):
        yield whole._replace(start=start, stop=min(start + size, whole.stop))


def _triangle(n: int) -> Iterator[Block]:
    # The widths are powers of two times the rows: oneDNN keeps memory for every shape of a product
    # that it has seen, and a width for each stripe would make that as large as all scores.
    size = chunk_rows(n, n)
    for start in range(0, n, size):
        stop = left = min(start + size, n)
        yield Block(start, stop, start, stop, square=True)
        while left < n:
            tiles = (n - left) // size
            width = size << (tiles.bit_length() - 1) if tiles else n - left
            yield Block(start, stop, left, left + width)
            left += width


__all__ = ["Block", "BlockedContrast", "Labels", "chunk_rows", "label_codes"]

"""The scores of a contrast, block by block, in a workspace of fixed size.

A block is some query rows against a contiguous range of keys. Which blocks there are depends on the
problem alone:

    plain     every query row against every key
    own       query and key are the same rows: scores are symmetric, so only blocks on and above the
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

from mmcl_fast.losses.contrast import Contrast
from mmcl_fast.losses.torch_backend.matmul import product
from mmcl_fast.losses.torch_backend.softmax_passes import LOG2, masked

Labels = tuple[Tensor, Tensor]

# `python -m bench.cpu.choices` times other values of both.
_BLOCK = 2**20  # scores computed at a time: 4 MiB of float32
_MIN_ROWS = 128  # below this a matrix product loses speed
_EXACT_CODES = 2**24  # of float32
_HELD = 2**22  # scores of a first sweep that are kept for the second: 16 MiB of float32


def chunk_rows(n: int, m: int) -> int:
    """Query rows handled at a time: a function of the sizes only, so results never vary."""
    return max(1, min(n, max(_MIN_ROWS, _BLOCK // max(m, 1))))


class Block(NamedTuple):
    """Query rows `start` to `stop` against keys `left` to `right`."""

    start: int
    stop: int
    left: int
    right: int
    # Of an own contrast: on the diagonal, where each pair stands twice.
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
        """Scores in it."""
        return (self.stop - self.start) * (self.right - self.left)


@dataclass
class Work:
    """One contrast in the dtype it is computed in, and sorted by label where that saves work.

    Attributes:
        contrast: The problem.
        query: [N, D], contiguous.
        key: [M, D], contiguous; `query` itself in an own contrast.
        temperature: 0-d.
        own: Query and key are the same rows, and blocks make use of it.
        codes: Labels as small numbers where blocks are masked by label.
        order: Of the query rows and of the keys, if sorted by label.
        split: How many queries and keys have the first of two labels, if sorted.
        positive: [N], the positives' scores in units of log 2; of positives that are keys, known
            once the block has been computed.
    """

    contrast: Contrast
    query: Tensor
    key: Tensor
    temperature: Tensor
    own: bool
    codes: Labels | None = None
    order: Labels | None = None
    split: tuple[int, int] | None = None
    held: dict[Block, Tensor] = field(default_factory=dict)
    transposed: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, contrast: Contrast) -> Work:
        """From a contrast whose tensors are on one device."""
        dtype = contrast.dtype
        temperature = contrast.temperature.to(dtype)
        codes = None if contrast.labels is None else label_codes(*contrast.labels, dtype)
        query = contrast.query.to(dtype)
        key = query if contrast.key is None else contrast.key.to(dtype)
        if codes is not None and _has_halves(contrast, codes):
            orders = codes[0].argsort(stable=True), codes[1].argsort(stable=True)
            split = int((codes[0] == 0).sum()), int((codes[1] == 0).sum())
            # index_select: the brackets take longer on some processors.
            query, own = query.index_select(0, orders[0]), contrast.key is None
            key = query if own else key.index_select(0, orders[1])
            return cls(contrast, query, key, temperature, own, None, orders, split)
        query = query.contiguous()
        key = query if contrast.key is None else key.contiguous()
        own = contrast.key is None and not contrast.stopped
        return cls(contrast, query, key, temperature, own, codes)

    @cached_property
    def scaled(self) -> Tensor:
        """The query, [N, D], such that its products with keys are scores in units of log 2."""
        return self.query / (self.temperature * LOG2)

    @cached_property
    def warm(self) -> Tensor:
        """The query over the temperature, [N, D]: what a key's gradient is mixed of."""
        return self.query / self.temperature

    @cached_property
    def warm_t(self) -> Tensor:
        """The same as [D, N], contiguous."""
        return self.warm.T.contiguous()

    def key_t(self, block: Block) -> Tensor:
        """The keys of a block as [D, columns]; contiguous where many blocks share them."""
        keys = self.key[block.columns]
        if self.own and self.split is None:
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
        """The keys that are the positives, [N], where those are row i of the caller's keys."""
        rows = torch.arange(len(self.query), device=self.query.device)
        if self.order is None:
            return rows
        return self.places[1].index_select(0, self.order[0])

    @cached_property
    def places(self) -> Labels:
        """Where each of the caller's query rows and keys has gone, if sorted by label."""
        assert self.order is not None
        return self.order[0].argsort(), self.order[1].argsort()

    @cached_property
    def positive(self) -> Tensor:
        """See the class."""
        if self._positives_are_in_blocks:
            return self.scaled.new_empty(len(self.scaled))
        positive = (self.scaled * self.positives).sum(dim=1)
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
        """Their scores, [c, K]."""
        return torch.bmm(self.hard(block), self.scaled[block.rows, :, None])[:, :, 0]

    def sorted_rows(self, x: Tensor) -> Tensor:
        """Rows of the query side in the order of `query`."""
        return x if self.order is None else x.index_select(0, self.order[0])

    def unsorted(self, x: Tensor, side: int = 0) -> Tensor:
        """Rows in the caller's order again; `side` 1 for keys."""
        return x if self.order is None else x.index_select(0, self.places[side])

    def blocks(self) -> Iterator[Block]:
        """All blocks, in a fixed order; the rows of a plain or half block meet all their keys."""
        n, m = len(self.query), len(self.key)
        if self.split is None:
            if self.own:
                yield from _triangle(n)
            else:
                hard = self.contrast.hard
                further = 0 if hard is None else hard.shape[1] * hard.shape[2]
                yield from _stripes(Block(0, n, 0, m), further)
            return
        first, other = self.split
        yield from _stripes(Block(0, first, other, m))
        if not self.own:
            yield from _stripes(Block(first, n, 0, other))

    def scores(self, block: Block, *, hold: bool = False) -> Tensor:
        """Scores of a block, a new tensor: what is no negative is masked, positives are noted.

        Args:
            block: One of `blocks()`.
            hold: Keep it for the next time, as far as the budget for that goes; then the caller
                may overwrite it the second time only.
        """
        if block in self.held:
            return self.held.pop(block)
        scores = product(self.scaled[block.rows], self.key[block.columns])
        if self.contrast.bias is not None:
            scores.add_(self.contrast.bias.to(scores.dtype) / LOG2)
        self._take_positives(scores, block)
        if self.contrast.exclude_self and self.split is None:
            self._diagonal(scores, block).fill_(masked(scores.dtype))
        self._mask_labels(scores, block)
        if hold:
            self._hold(block, scores)
        return scores

    def _take_positives(self, scores: Tensor, block: Block) -> None:
        # From the product, not a separate dot: equal rows then have exactly equal scores.
        if not self._positives_are_in_blocks:
            return
        hidden = masked(scores.dtype)
        if self.contrast.positive is None:
            diagonal = self._diagonal(scores, block)
            self.positive[block.rows] = diagonal
            diagonal.fill_(hidden)
            return
        at = self.contrast.positive[block.rows]
        if not self.own:
            at = at[:, None]
            self.positive[block.rows] = scores.gather(1, at).squeeze(1)
            scores.scatter_(1, at, hidden)
            return
        row = torch.nonzero((at >= block.left) & (at < block.right)).squeeze(1)
        column = at[row] - block.left
        found = scores[row, column]
        self.positive[block.start + row] = found
        self.positive[at[row]] = found  # the positive's positive is this row
        scores[row, column] = hidden

    def _mask_labels(self, scores: Tensor, block: Block) -> None:
        if self.codes is None:
            return
        # Float comparison and add: a boolean mask costs more on a CPU (`python -m
        # bench.cpu.choices`).
        own, other = self.codes
        labelled = scores[:, : len(other)]
        same = torch.eq(own[block.rows, None], other[None, :], out=torch.empty_like(labelled))
        labelled.add_(same, alpha=masked(scores.dtype))

    def _diagonal(self, scores: Tensor, block: Block) -> Tensor:
        """The entries of a block that pair row i with key i; empty where it has none."""
        if block.left > block.start:
            return scores[:0, 0]
        mine = len(self.key) - self.contrast.extra - block.left
        return scores[:, :mine].diagonal(block.start - block.left)

    def _hold(self, block: Block, scores: Tensor) -> None:
        self.held[block] = scores
        # The second sweep goes backwards, so the latest blocks are wanted first.
        while sum(b.size for b in self.held) > max(_HELD, block.size):
            del self.held[next(iter(self.held))]


def label_codes(own: Tensor, other: Tensor, dtype: torch.dtype) -> Labels:
    """Labels as 0, 1, 2, ..., in a float dtype as far as that is exact; no device sync."""
    both = torch.cat([own, other])
    ordered, order = both.sort()
    if len(both) > _EXACT_CODES:
        dtype = torch.int64  # slower to compare
    codes = torch.zeros(len(both), dtype=dtype, device=both.device)
    codes[order[1:]] = (ordered[1:] != ordered[:-1]).cumsum(0).to(dtype)
    return codes[: len(own)], codes[len(own) :]


def _has_halves(contrast: Contrast, codes: Labels) -> bool:
    """Whether all negatives lie in the off-diagonal blocks of two labels, unmasked."""
    own, other = codes
    n = len(own)
    if contrast.query.device.type != "cpu":  # reading labels would wait for the device
        return False
    if contrast.extra or contrast.hard is not None or not len(other):
        return False
    if float(max(own.max() if n else 0.0, other.max())) > 1:
        return False
    if contrast.positive is not None:
        return False
    # A positive that is a key, and row i itself, must be no negative for their label's sake.
    harmless = contrast.positive_key is not None and not contrast.exclude_self
    return harmless or torch.equal(own, other[:n])


def _stripes(whole: Block, further: int = 0) -> Iterator[Block]:
    """A block cut into chunks of rows, which take `further` numbers each beside their scores."""
    n, m = whole.stop - whole.start, whole.right - whole.left
    size = chunk_rows(n, m + further)
    for start in range(whole.start, whole.stop, size):
        yield whole._replace(start=start, stop=min(start + size, whole.stop))


def _triangle(n: int) -> Iterator[Block]:
    size = chunk_rows(n, n)
    for start in range(0, n, size):
        stop = min(start + size, n)
        yield Block(start, stop, start, stop, square=True)
        if stop < n:
            yield Block(start, stop, stop, n)


__all__ = ["Block", "Labels", "Work", "chunk_rows", "label_codes"]

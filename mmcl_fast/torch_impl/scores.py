"""The scores of InfoNCE, one chunk of query rows at a time, in a workspace of fixed size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

Labels = tuple[Tensor, Tensor]

_WORKSPACE = 2**20  # scores held at a time: 4 MiB of float32; 2^18 to 2^21 are equally fast
_MIN_ROWS = 128  # below this a matrix product loses speed (measured: 134 of 165 GFLOP/s at 64)
_TINY = {torch.float32: 2.0**-100, torch.float64: 2.0**-960}


def chunk_rows(n: int, m: int) -> int:
    """Query rows handled at a time: a function of the sizes only, so results never vary."""
    return max(1, min(n, max(_MIN_ROWS, _WORKSPACE // max(m, 1))))


class Chunk(NamedTuple):
    """Query rows `start` to `stop` against every key, in units of log 2."""

    start: int
    stop: int
    query: Tensor  # [c, D], scaled so that its products with keys are scores
    scores: Tensor  # [c, M], negatives only: everything else is at `Work.masked`
    positive: Tensor  # [c]


@dataclass
class Work:
    """One problem in the dtype it is computed in, and the workspace its chunks share."""

    query: Tensor
    key: Tensor
    positive_key: Tensor | None
    temperature: Tensor
    codes: Labels | None
    rows: int
    buffers: list[Tensor] = field(default_factory=list)
    held: Chunk | None = None

    @classmethod
    def of(
        cls,
        query: Tensor,
        key: Tensor,
        positive_key: Tensor | None,
        temperature: Tensor,
        labels: Labels | None,
    ) -> Work:
        """From the arguments of `mmcl_fast.torch_impl.info_nce_op`."""
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        codes = None if labels is None else _label_codes(*labels, dtype)
        rows = chunk_rows(len(query), len(key))
        wide = key.to(dtype).contiguous()
        return cls(query, wide, positive_key, temperature.to(dtype), codes, rows)

    @property
    def masked(self) -> float:
        """The score of a pair that is no negative."""
        # Finite, and so is twice it; 2 to the power of anything near it is 0.
        return torch.finfo(self.key.dtype).min / 2

    def buffer(self, index: int, rows: int) -> Tensor:
        """`rows` rows of one of the [chunk, M] matrices that all chunks share."""
        while len(self.buffers) <= index:
            self.buffers.append(self.key.new_empty(self.rows, len(self.key)))
        return self.buffers[index][:rows]

    def starts(self) -> range:
        """First row of every chunk."""
        return range(0, len(self.query), self.rows)

    def positives(self, start: int, stop: int) -> Tensor:
        """The positives' features of these query rows, [c, D]."""
        if self.positive_key is None:
            return self.key[start:stop]
        return self.positive_key[start:stop].to(self.key.dtype)

    def chunk(self, start: int) -> Chunk:
        """Scores of the query rows from `start` on; kept until the next chunk is asked for."""
        if self.held is not None and self.held.start == start:
            return self.held
        stop = min(start + self.rows, len(self.query))
        query = self.query[start:stop].to(self.key.dtype) / (self.temperature * math.log(2.0))
        scores = torch.mm(query, self.key.T, out=self.buffer(0, stop - start))
        if self.positive_key is None:
            # From the product, not a separate dot: equal rows then have exactly equal scores.
            diagonal = scores.diagonal(start)
            positive = diagonal.clone()
            diagonal.fill_(self.masked)
        else:
            positive = (query * self.positives(start, stop)).sum(dim=1)
        if self.codes is not None:
            # Float comparison and add: boolean masks cost 5 to 20 times as much on a CPU.
            own, other = self.codes
            same = self.buffer(1, stop - start)
            torch.eq(own[start:stop, None], other[None, :], out=same)
            scores.add_(same, alpha=self.masked)
        self.held = Chunk(start, stop, query, scores, positive)
        return self.held


def _label_codes(own: Tensor, other: Tensor, dtype: torch.dtype) -> Labels:
    """Labels as 0, 1, 2, ... in a float dtype (exact below 2^24 labels); no device sync."""
    both = torch.cat([own, other])
    ordered, order = both.sort()
    codes = torch.zeros(len(both), dtype=dtype, device=both.device)
    codes[order[1:]] = (ordered[1:] != ordered[:-1]).cumsum(0).to(dtype)
    return codes[: len(own)], codes[len(own) :]


def softmax_terms(scores: Tensor, top: Tensor, out: Tensor) -> Tensor:
    """2^(scores - top), with 0 for what is negligible."""
    torch.sub(scores, top, out=out).exp2_()
    return torch.threshold_(out, _TINY[out.dtype], 0.0)


__all__ = ["Chunk", "Labels", "Work", "chunk_rows", "softmax_terms"]

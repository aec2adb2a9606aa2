"""Data-parallel communication for one run: none, or a process group that shards its samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from mmcl_fast.engines.paper_loss.label_halves import Halves


class SampleShard(Protocol):
    """The samples of this process and its communication with the other shards.

    All methods are collective calls.

    Attributes:
        samples: Indices of the samples of this process.
        is_whole: Whether it has all samples: then every query meets all keys in one process.
    """

    samples: range
    is_whole: bool

    def local_indices(self, batch: Tensor) -> Tensor:
        """Positions in `samples` of the local samples of a minibatch, from its indices [k]."""
        ...

    def keys(self, local_keys: Halves, batch: Tensor | None = None) -> Iterator[Halves]:
        """Features of all samples, or of a minibatch, as keys; the local ones come first.

        A block is valid until the next one is requested. Signal features are equal in all shards.
        """
        ...

    def sum(self, x: Tensor) -> Tensor:
        """Sum of `x` over all shards, bit-identical in every process; may overwrite `x`."""
        ...

    def maximum(self, x: Tensor) -> Tensor:
        """Elementwise maximum of `x` over all shards."""
        ...

    def all_rows(self, local_rows: Tensor) -> Tensor:
        """Rows of all samples [n, k] in their order, from the local ones."""
        ...


class WholeRun:
    """All samples in one process: no communication."""

    is_whole = True

    def __init__(self, n: int) -> None:
        self.samples = range(n)

    def local_indices(self, batch: Tensor) -> Tensor:
        """See `SampleShard.local_indices`."""
        return batch

    def keys(self, local_keys: Halves, batch: Tensor | None = None) -> Iterator[Halves]:
        """See `SampleShard.keys`."""
        yield local_keys

    def sum(self, x: Tensor) -> Tensor:
        """See `SampleShard.sum`."""
        return x

    def maximum(self, x: Tensor) -> Tensor:
        """See `SampleShard.maximum`."""
        return x

    def all_rows(self, local_rows: Tensor) -> Tensor:
        """See `SampleShard.all_rows`."""
        return local_rows


__all__ = ["SampleShard", "WholeRun"]

"""Who else trains the same run: nobody, or processes that each have some of its samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from mmcl_fast.engines.paper_loss.label_halves import Halves


class Peers(Protocol):
    """What a process that has some of the samples needs of the others; all calls are collective.

    Attributes:
        samples: Those of this process.
    """

    samples: range

    def mine(self, batch: Tensor) -> Tensor:
        """Which of one's own samples are in a minibatch [k]: by their place in `samples`."""
        ...

    def keys(self, own: Halves, batch: Tensor | None = None) -> Iterator[Halves]:
        """Everyone's features as keys, one's own first; of all samples or of those of a minibatch.

        A part stays as it is until the next one is asked for. Signal features are the same in all.
        """
        ...

    def sum(self, x: Tensor) -> Tensor:
        """Everyone's `x` added up, with the same bits in every process; `x` may be overwritten."""
        ...

    def largest(self, x: Tensor) -> Tensor:
        """The largest of everyone's `x`, elementwise."""
        ...

    def rows(self, own: Tensor) -> Tensor:
        """Everyone's rows [n, k] from one's own, in the order of the samples."""
        ...


class Alone:
    """One process has all samples."""

    def __init__(self, n: int) -> None:
        self.samples = range(n)

    def mine(self, batch: Tensor) -> Tensor:
        """See `Peers.mine`."""
        return batch

    def keys(self, own: Halves, batch: Tensor | None = None) -> Iterator[Halves]:
        """See `Peers.keys`."""
        yield own

    def sum(self, x: Tensor) -> Tensor:
        """See `Peers.sum`."""
        return x

    def largest(self, x: Tensor) -> Tensor:
        """See `Peers.largest`."""
        return x

    def rows(self, own: Tensor) -> Tensor:
        """See `Peers.rows`."""
        return own


__all__ = ["Alone", "Peers"]

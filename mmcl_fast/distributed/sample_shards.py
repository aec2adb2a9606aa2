"""What the processes of a group tell each other while they train one run.

Keys go round a ring (`exchange.RingTrip`): a process has its own, those in hand and those arriving.
Everything else is a sum or the rows of everyone, put together in the order of ranks.

What leaves a process, of W, with n_s samples in the next one: for the keys of a modality, W - 1
messages of (n - n_s) m numbers in all; for a sum of k numbers 2 k (W - 1) / W on average, since
each is added up in one process and sent from there to all; for everyone's rows, its own to each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from mmcl_fast.distributed.exchange import RingTrip
from mmcl_fast.distributed.group import Members
from mmcl_fast.engines.paper_loss.label_halves import Halves

# Numbers of which everyone sends all to all: one message each, where the other way takes two.
_FEW = 512


class GroupShard:
    """See `engines.data_parallel.SampleShard`.

    Args:
        members: Everyone; their rows are their shares of the samples, in the order of ranks.
        labels: Of all samples, on the CPU.
    """

    is_whole = False

    def __init__(self, members: Members, labels: Tensor) -> None:
        self._members, self._labels = members, labels
        self._ends = torch.tensor(members.rows).cumsum(0)
        start = self._ends[members.rank] - members.rows[members.rank]
        self.samples = range(int(start), int(self._ends[members.rank]))

    def local_indices(self, batch: Tensor) -> Tensor:
        """See `SampleShard.local_indices`."""
        inside = (batch >= self.samples.start) & (batch < self.samples.stop)
        return batch[inside] - self.samples.start

    def keys(self, local_keys: Halves, batch: Tensor | None = None) -> Iterator[Halves]:
        """See `SampleShard.keys`."""
        rank, size = self._members.rank, self._members.size
        samples = torch.arange(len(self._labels)) if batch is None else batch
        rows, splits = self._counts(samples), self._counts(samples[self._labels[samples] > 0])
        trip = RingTrip(replace(self._members, rows=rows), (local_keys.noise,))
        yield local_keys
        for step, (noise,) in enumerate(trip.payloads(), start=1):
            yield Halves(noise, local_keys.signal, splits[(rank - step) % size])

    def sum(self, x: Tensor) -> Tensor:
        """See `SampleShard.sum`."""
        members = self._members
        if x.numel() <= _FEW:
            return members.shared_sum(x)
        whole = x.flatten()
        parts = whole.tensor_split(members.size)
        mine, counts = parts[members.rank], [len(part) for part in parts]
        found = whole.new_empty(members.size, len(mine))
        dist.all_to_all_single(
            found.view(-1), whole, [len(mine)] * members.size, counts, group=members.group
        )
        mine.copy_(found[0])
        for other in found[1:]:
            mine += other
        self._spread(parts)
        return whole.view_as(x)

    def maximum(self, x: Tensor) -> Tensor:
        """See `SampleShard.maximum`."""
        found = x.clone()
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._members.group)
        return found

    def all_rows(self, local_rows: Tensor) -> Tensor:
        """See `SampleShard.all_rows`."""
        whole = local_rows.new_empty(self._members.total, local_rows.shape[1])
        parts = whole.split(self._members.rows)
        parts[self._members.rank].copy_(local_rows)
        self._spread(parts)
        return whole

    def _counts(self, samples: Tensor) -> tuple[int, ...]:
        """How many of some samples each rank has."""
        owners = torch.bucketize(samples, self._ends, right=True)
        return tuple(owners.bincount(minlength=self._members.size).tolist())

    def _spread(self, parts: Sequence[Tensor]) -> None:
        """Fill in each rank's part from that rank; parts may have different sizes."""
        for rank, part in enumerate(parts):
            source = dist.get_global_rank(self._members.group, rank)
            dist.broadcast(part, source, group=self._members.group)


__all__ = ["GroupShard"]

"""Data-parallel communication of one training run in a process group.

Keys go round a ring (`exchange.RingExchange`): a process holds its own keys, the current ones and
those arriving. All else is a sum over ranks, or all rows, in the order of ranks.

Traffic that leaves one of W processes, with n_s samples on the next one: for the keys of a
modality, W - 1 messages of (n - n_s) m elements in all; for a sum of k elements 2 k (W - 1) / W on
average, as each is summed in one process and sent from there to all; for all rows, its own rows to
each process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from mmcl_fast.distributed.exchange import RingExchange
from mmcl_fast.distributed.group import Members
from mmcl_fast.engines.paper_loss.label_halves import Halves

# Up to so many elements, a sum gathers them all on every rank: one message instead of two.
_FEW = 512


class GroupShard:
    """See `engines.data_parallel.SampleShard`.

    Args:
        members: The ranks; their rows are their shares of the samples, in the order of ranks.
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
        ring = RingExchange(replace(self._members, rows=rows), (local_keys.noise,))
        yield local_keys
        for step, (noise,) in enumerate(ring.payloads(), start=1):
            yield Halves(noise, local_keys.signal, splits[(rank - step) % size])

    def sum(self, x: Tensor) -> Tensor:
        """See `SampleShard.sum`."""
        members = self._members
        if x.numel() <= _FEW:
            return members.shared_sum(x)
        whole = x.flatten()
        parts = whole.tensor_split(members.size)
        local, counts = parts[members.rank], [len(part) for part in parts]
        received = whole.new_empty(members.size, len(local))
        dist.all_to_all_single(
            received.view(-1), whole, [len(local)] * members.size, counts, group=members.group
        )
        local.copy_(received[0])
        for part in received[1:]:
            local += part
        self._spread(parts)
        return whole.view_as(x)

    def maximum(self, x: Tensor) -> Tensor:
        """See `SampleShard.maximum`."""
        largest = x.clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._members.group)
        return largest

    def all_rows(self, local_rows: Tensor) -> Tensor:
        """See `SampleShard.all_rows`."""
        whole = local_rows.new_empty(self._members.total, local_rows.shape[1])
        parts = whole.split(self._members.rows)
        parts[self._members.rank].copy_(local_rows)
        self._spread(parts)
        return whole

    def _counts(self, samples: Tensor) -> tuple[int, ...]:
        """The number of `samples` on each rank."""
        owners = torch.bucketize(samples, self._ends, right=True)
        return tuple(owners.bincount(minlength=self._members.size).tolist())

    def _spread(self, parts: Sequence[Tensor]) -> None:
        """Broadcast each part from its rank; parts may have different sizes."""
        for rank, part in enumerate(parts):
            source = dist.get_global_rank(self._members.group, rank)
            dist.broadcast(part, source, group=self._members.group)


__all__ = ["GroupShard"]

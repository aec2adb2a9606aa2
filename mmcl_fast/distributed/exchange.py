"""All-to-all exchange of rows between ranks: by one gather, or one block at a time in a ring.

An exchange sends the payload of each rank, tensors with one entry per local row, to all other
ranks, and returns their results for these rows, merged. Transfers start before they are needed, so
they overlap with computation on local rows.

Memory: gathered, the payload of the whole batch, and results for it; in the ring the local payload,
two of the largest rank's size, and three results of one rank. Results are merged in the order of
ranks (in the ring: starting with the next one), so runs repeat bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from mmcl_fast.distributed.group import Members

Payload = tuple[Tensor, ...]
# From the payload [rows, ..] of another rank to its result [rows, ..].
Visit = Callable[[Payload], Tensor | None]
Merge = Callable[[Tensor, Tensor], Tensor]


class Exchange(Protocol):
    """One exchange between all ranks; the constructor starts the first transfer.

    Attributes:
        visiting: The ranks whose payload is being visited, in its order.
    """

    visiting: range

    def __init__(self, members: Members, payload: Payload) -> None:
        """Start the transfer of the local payload."""

    def run(self, visit: Visit, merge: Merge) -> Tensor | None:
        """Visit the payloads of other ranks; returns their merged results for the local one.

        None: there are no other ranks, or no results.
        """


class GatherExchange:
    """All payloads at once, in two visits: of the ranks before this one, and of those after."""

    def __init__(self, members: Members, payload: Payload) -> None:
        self.members, self.visiting = members, range(0)
        longest = max(members.rows)
        self.gathered: list[Tensor] = []
        self.works: list[dist.Work] = []
        for x in payload:
            padded = x.contiguous()
            if len(x) < longest:
                padded = x.new_zeros(longest, *x.shape[1:])
                padded[: len(x)] = x
            whole = x.new_empty(members.size, *padded.shape)
            work = dist.all_gather(list(whole), padded, group=members.group, async_op=True)
            assert work is not None
            self.works.append(work)
            self.gathered.append(whole)

    def run(self, visit: Visit, merge: Merge) -> Tensor | None:
        """See `Exchange`."""
        for work in self.works:
            work.wait()
        rank, size = self.members.rank, self.members.size
        before = self._visited(range(rank), visit)
        behind = self._visited(range(rank + 1, size), visit)
        like = behind if before is None else before
        return None if like is None else self._returned(before, behind, like, merge)

    def _visited(self, visiting: range, visit: Visit) -> Tensor | None:
        if not visiting:
            return None
        self.visiting, ranks = visiting, slice(visiting.start, visiting.stop)
        rows = self.members.rows[ranks]
        even = len(set(self.members.rows)) == 1
        return visit(
            tuple(
                whole[ranks].flatten(0, 1)
                if even
                else torch.cat([part[:n] for part, n in zip(whole[ranks], rows, strict=True)])
                for whole in self.gathered
            )
        )

    def _returned(
        self, before: Tensor | None, behind: Tensor | None, like: Tensor, merge: Merge
    ) -> Tensor | None:
        members = self.members
        local_rows, sent_rows = members.rows[members.rank], list(members.rows)
        sent_rows[members.rank] = 0
        sent = torch.cat([x for x in (before, behind) if x is not None])
        received_rows = [0 if rank == members.rank else local_rows for rank in range(members.size)]
        received = like.new_empty(sum(received_rows), *like.shape[1:])
        dist.all_to_all_single(received, sent, received_rows, sent_rows, group=members.group)
        merged: Tensor | None = None
        for part in received.split(local_rows):
            merged = part if merged is None else merge(merged, part)
        return merged


class RingExchange:
    """From rank to next rank: a payload arrives while the previous one is being visited."""

    def __init__(self, members: Members, payload: Payload) -> None:
        self.members, self.visiting = members, range(0)
        ring = range(members.size)
        self.next, self.last = (
            dist.get_global_rank(members.group, ring[(members.rank + step) % members.size])
            for step in (1, -1)
        )
        self.travelling = tuple(x.contiguous() for x in payload)
        self.arriving, self.works = self.travelling, list[dist.Work]()
        self.buffers: list[Payload] = []
        if members.size > 1:
            self._pass_on(1)

    def run(self, visit: Visit, merge: Merge) -> Tensor | None:
        """See `Exchange`."""
        arriving: Tensor | None = None
        leaving: list[dist.Work] = []
        members = self.members
        for step, payload in enumerate(self.payloads(), start=1):
            rank = (members.rank - step) % members.size
            self.visiting = range(rank, rank + 1)
            result = visit(payload)
            for work in leaving:
                work.wait()
            if result is None:
                continue
            if arriving is not None:
                result = merge(arriving, result)
            result = result.contiguous()
            arriving = result.new_empty(self._rows(step + 1), *result.shape[1:])
            leaving = self._exchange((result,), (arriving,), tag=len(payload))
        for work in leaving:
            work.wait()
        return arriving

    def payloads(self) -> Iterator[Payload]:
        """Those of the other ranks, from the previous rank backwards.

        A payload is valid until the next one is requested.
        """
        for step in range(1, self.members.size):
            for work in self.works:
                work.wait()
            self.travelling = self.arriving
            if step + 1 < self.members.size:
                self._pass_on(step + 1)
            yield self.travelling

    def _rows(self, step: int) -> int:
        """Rows of the payload on this rank after `step` steps."""
        return self.members.rows[(self.members.rank - step) % self.members.size]

    def _pass_on(self, step: int) -> None:
        rows, longest = self._rows(step), max(self.members.rows)
        # Two buffers: one is visited and sent while the other one is received.
        if len(self.buffers) < 2:
            like = self.travelling
            self.buffers.append(tuple(x.new_empty(longest, *x.shape[1:]) for x in like))
        self.arriving = tuple(x[:rows] for x in self.buffers[(step - 1) % 2])
        self.works = self._exchange(self.travelling, self.arriving, tag=0)

    def _exchange(self, leaving: Payload, arriving: Payload, tag: int) -> list[dist.Work]:
        group = self.members.group
        operations = [
            dist.P2POp(operation, x, peer, group, tag + k)
            for tensors, operation, peer in (
                (leaving, dist.isend, self.next),
                (arriving, dist.irecv, self.last),
            )
            for k, x in enumerate(tensors)
            if x.numel()  # both ends know the number of rows, and skip empty messages
        ]
        works: list[dist.Work] = dist.batch_isend_irecv(operations) if operations else []
        return works


EXCHANGES: dict[str, type[Exchange]] = {"gather": GatherExchange, "ring": RingExchange}

__all__ = ["EXCHANGES", "Exchange", "GatherExchange", "Merge", "Payload", "RingExchange", "Visit"]

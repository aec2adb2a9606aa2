"""How every rank's rows meet every other rank: gathered at once, or one after the other in a ring.

A trip brings the payload of each rank, tensors with one row for each of its local rows, to all
others, and brings what they made of it back to its home. Transfers are started before they are
needed, so that the caller computes on its own rows meanwhile.

Memory: gathered, the payload of the whole batch, and results for it; in the ring the own payload,
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
Visit = Callable[[Payload], Tensor | None]  # payload [rows, ..] of others to result [rows, ..]
Merge = Callable[[Tensor, Tensor], Tensor]


class Trip(Protocol):
    """One meeting of all ranks; constructing it starts the first transfer."""

    def __init__(self, members: Members, payload: Payload) -> None:
        """Start it with the own payload."""

    def run(self, visit: Visit, merge: Merge) -> Tensor | None:
        """Visit everyone else's payload; returns what all others made of the own one, merged.

        None: there are no others, or no results.
        """


class GatherTrip:
    """All payloads at once: two visits, of all ranks before this one and of all behind it."""

    def __init__(self, members: Members, payload: Payload) -> None:
        self.members = members
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
        """See `Trip`."""
        for work in self.works:
            work.wait()
        rank, size = self.members.rank, self.members.size
        before = self._visited(slice(0, rank), visit)
        behind = self._visited(slice(rank + 1, size), visit)
        like = behind if before is None else before
        return None if like is None else self._sent_home(before, behind, like, merge)

    def _visited(self, ranks: slice, visit: Visit) -> Tensor | None:
        rows = self.members.rows[ranks]
        if not rows:
            return None
        even = len(set(self.members.rows)) == 1
        return visit(
            tuple(
                whole[ranks].flatten(0, 1)
                if even
                else torch.cat([part[:n] for part, n in zip(whole[ranks], rows, strict=True)])
                for whole in self.gathered
            )
        )

    def _sent_home(
        self, before: Tensor | None, behind: Tensor | None, like: Tensor, merge: Merge
    ) -> Tensor | None:
        members = self.members
        mine, others = members.rows[members.rank], list(members.rows)
        others[members.rank] = 0
        made = torch.cat([x for x in (before, behind) if x is not None])
        back = [0 if rank == members.rank else mine for rank in range(members.size)]
        home = like.new_empty(sum(back), *like.shape[1:])
        dist.all_to_all_single(home, made, back, others, group=members.group)
        merged: Tensor | None = None
        for part in home.split(mine):
            merged = part if merged is None else merge(merged, part)
        return merged


class RingTrip:
    """From rank to next rank: a payload arrives while the one before it is being visited."""

    def __init__(self, members: Members, payload: Payload) -> None:
        self.members = members
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
        """See `Trip`."""
        arriving: Tensor | None = None
        leaving: list[dist.Work] = []
        for step, payload in enumerate(self.payloads(), start=1):
            made = visit(payload)
            for work in leaving:
                work.wait()
            if made is None:
                continue
            if arriving is not None:
                made = merge(arriving, made)
            made = made.contiguous()
            arriving = made.new_empty(self._rows(step + 1), *made.shape[1:])
            leaving = self._exchange((made,), (arriving,), tag=len(payload))
        for work in leaving:
            work.wait()
        return arriving

    def payloads(self) -> Iterator[Payload]:
        """Everyone else's, that of the rank before this one first.

        Each stays as it is until the next one is asked for.
        """
        for step in range(1, self.members.size):
            for work in self.works:
                work.wait()
            self.travelling = self.arriving
            if step + 1 < self.members.size:
                self._pass_on(step + 1)
            yield self.travelling

    def _rows(self, step: int) -> int:
        """Of the payload that is here `step` steps after the start."""
        return self.members.rows[(self.members.rank - step) % self.members.size]

    def _pass_on(self, step: int) -> None:
        rows, longest = self._rows(step), max(self.members.rows)
        # Two by turns: one is visited and passed on while the other fills.
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
            if x.numel()  # of no rows nothing is sent, and both ends know how many there are
        ]
        works: list[dist.Work] = dist.batch_isend_irecv(operations) if operations else []
        return works


TRIPS: dict[str, type[Trip]] = {"gather": GatherTrip, "ring": RingTrip}

__all__ = ["TRIPS", "GatherTrip", "Merge", "Payload", "RingTrip", "Trip", "Visit"]

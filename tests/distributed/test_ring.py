"""When the ring sends and receives: without processes, each transfer is noted and done at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast.distributed import trips
from mmcl_fast.distributed.members import Members
from mmcl_fast.distributed.trips import RingTrip


class Noted:
    """Stands for torch.distributed; every transfer arrives full of ones when it is waited for."""

    isend, irecv = "send", "receive"

    def __init__(self) -> None:
        self.events: list[str] = []

    def get_global_rank(self, group: Any, rank: int) -> int:
        return rank

    def P2POp(self, kind: str, x: Tensor, peer: int, group: Any, tag: int) -> tuple[Any, ...]:
        return kind, x, peer, tag

    def batch_isend_irecv(self, operations: list[tuple[Any, ...]]) -> list[Noted.Work]:
        kinds = {"result" if tag else "payload" for *_, tag in operations}
        assert len(kinds) == 1
        name = kinds.pop()
        self.events.append(f"start {name}")
        return [Noted.Work(self, name, *operation[:2]) for operation in operations]

    class Work:
        def __init__(self, noted: Noted, name: str, kind: str, x: Tensor) -> None:
            self.noted, self.name, self.kind, self.x = noted, name, kind, x

        def wait(self) -> None:
            if self.kind == "receive":
                self.x.fill_(1.0)
                self.noted.events.append(f"have {self.name}")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_next_block_travels_while_this_one_is_visited(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = Noted()
    monkeypatch.setattr(trips, "dist", noted)
    members = Members(None, 0, tuple(range(3, 3 + size)))  # type: ignore[arg-type]
    trip = RingTrip(members, (torch.zeros(3, 2),))
    noted.events.append("own block")
    seen = []

    def visit(payload: tuple[Tensor, ...]) -> Tensor:
        assert (payload[0] == 1).all()
        seen.append(len(payload[0]))
        noted.events.append("visit")
        return torch.zeros(len(payload[0]), 5)

    home = trip.run(visit, torch.Tensor.add_)
    assert seen == list(members.rows[:0:-1])  # the last rank's block comes first
    assert (home is None) is (size == 1)
    if home is not None:
        assert home.shape == (3, 5)
    expected = {
        1: ["own block"],
        2: ["start payload", "own block", "have payload", "visit", "start result", "have result"],
        4: [
            *("start payload", "own block", "have payload"),
            *("start payload", "visit", "start result", "have payload"),
            *("start payload", "visit", "have result", "start result", "have payload"),
            *("visit", "have result", "start result", "have result"),
        ],
    }
    assert noted.events == expected[size]

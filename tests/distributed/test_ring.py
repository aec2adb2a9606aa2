"""When the ring sends and receives: without processes, each transfer is noted and done at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast.distributed import exchange
from mmcl_fast.distributed.exchange import RingExchange
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.sample_shards import GroupShard
from mmcl_fast.engines.paper_loss.label_halves import Halves


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
    monkeypatch.setattr(exchange, "dist", noted)
    members = Members(None, 0, tuple(range(3, 3 + size)))  # type: ignore[arg-type]
    ring = RingExchange(members, (torch.zeros(3, 2),))
    noted.events.append("own block")
    seen = []

    def visit(payload: tuple[Tensor, ...]) -> Tensor:
        assert (payload[0] == 1).all()
        seen.append(len(payload[0]))
        noted.events.append("visit")
        return torch.zeros(len(payload[0]), 5)

    home = ring.run(visit, torch.Tensor.add_)
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


def test_blocks_stand_in_two_buffers_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "dist", Noted())
    members = Members(None, 0, (2, 5, 0, 4, 3))  # type: ignore[arg-type]
    ring = RingExchange(members, (torch.zeros(2, 3),))
    blocks = [payload[0] for payload in ring.payloads()]
    assert [len(x) for x in blocks] == [3, 4, 0, 5]
    assert len(ring.buffers) == 2
    homes = [x.untyped_storage().data_ptr() for x in blocks]
    assert homes[0] == homes[2] != homes[1] == homes[3]
    assert {x.untyped_storage().nbytes() for x in blocks} == {5 * 3 * 4}


def test_keys_come_own_first_and_then_from_the_rank_before(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Noted()
    monkeypatch.setattr(exchange, "dist", noted)
    labels = torch.tensor([1.0, 1, -1, -1, -1, 1, 1, 1, 1])
    shard = GroupShard(Members(None, 1, (2, 4, 3)), labels)  # type: ignore[arg-type]
    assert shard.samples == range(2, 6)
    own = Halves(torch.zeros(4, 2), torch.zeros(2, 2), 1)
    keys = shard.keys(own)
    assert next(keys) is own
    assert noted.events == ["start payload"]  # and travels while the own keys are met
    assert [(len(x.noise), x.split) for x in keys] == [(2, 2), (3, 3)]
    batch = torch.tensor([8, 3, 1, 2, 7])
    assert shard.local_indices(batch).tolist() == [1, 0]
    own = Halves(torch.zeros(2, 2), torch.zeros(2, 2), 0)
    assert [(len(x.noise), x.split) for x in shard.keys(own, batch)] == [(2, 0), (1, 1), (2, 2)]

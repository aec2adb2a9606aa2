"""Who takes part in a distributed loss, and what all of them must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

Group = dist.ProcessGroup


@dataclass(frozen=True)
class Members:
    """The processes of a group; ranks are those inside the group.

    Attributes:
        group: The process group.
        rank: Of this process.
        rows: Of each rank's local batch.
    """

    group: Group
    rank: int
    rows: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.rows)

    @property
    def total(self) -> int:
        """Rows of the whole batch."""
        return sum(self.rows)

    def shared_sum(self, x: Tensor) -> Tensor:
        """Sum of everyone's `x`, added in the order of ranks: the same bits everywhere."""
        parts = [torch.empty_like(x) for _ in self.rows]
        dist.all_gather(parts, x.contiguous(), group=self.group)
        return torch.stack(parts).sum(dim=0)


class Card(NamedTuple):
    """What one rank brings to a call, as numbers; 0 rows: its arguments were refused."""

    rows: int
    features: int = 0
    dtype: int = 0
    loss: int = 0
    mode: int = 0
    gradient: int = 0
    requires_grad: int = 0


DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def group_of(group: Group | None) -> Group:
    """The group, or the default one.

    Raises:
        RuntimeError: There is none yet.
        ValueError: This process is not in it.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "group: expected torch.distributed.init_process_group to have been called, "
            "got no process group"
        )
    if group is None:
        found = dist.group.WORLD
        assert found is not None
        return found
    if not isinstance(group, Group) or dist.get_rank(group) < 0:
        raise ValueError("group: expected a process group that this process is in, got another")
    return group


def agree(group: Group, card: Card) -> Members:
    """Everyone's rows, once all else on the cards is found to be the same.

    Raises:
        ValueError: Something differs, or was refused on some rank; raised on every rank alike.
    """
    table = _shown_around(group, card)
    refused = [rank for rank, other in enumerate(table) if not other.rows]
    if refused:
        raise ValueError(f"arguments: expected valid ones on every rank, refused on rank {refused}")
    for k, name in enumerate(Card._fields[1:], start=1):
        if len({other[k] for other in table}) > 1:
            values = [_shown(name, other[k]) for other in table]
            raise ValueError(f"{name}: expected the same on every rank, got {', '.join(values)}")
    return Members(group, dist.get_rank(group), tuple(other.rows for other in table))


def refuse(group: Group) -> None:
    """Take part in the others' `agree`, which then raises there."""
    _shown_around(group, Card(rows=0))


def _shown_around(group: Group, card: Card) -> list[Card]:
    mine = torch.tensor(card, dtype=torch.int64, device=_device(group))
    cards = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(cards, mine, group=group)
    return [Card(*card) for card in torch.stack(cards).tolist()]


def alike(group: Group, rows: int) -> Members:
    """Members that are known to bring `rows` rows each; nothing is exchanged."""
    return Members(group, dist.get_rank(group), (rows,) * dist.get_world_size(group))


def _shown(name: str, value: int) -> str:
    return str(DTYPES[value]).removeprefix("torch.") if name == "dtype" else str(value)


def _device(group: Group) -> torch.device:
    """Where numbers can be exchanged: a CPU if the group serves one, as nothing waits there."""
    if "cpu" in dist.get_backend_config(group):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


__all__ = ["DTYPES", "Card", "Group", "Members", "agree", "alike", "group_of", "refuse"]

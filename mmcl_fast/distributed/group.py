"""Process groups of a distributed loss, and agreement on its arguments."""

from __future__ import annotations

import struct
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
        rows: Rows of each rank's local batch.
        extra: Extra negatives of each rank, if the loss has any.
    """

    group: Group
    rank: int
    rows: tuple[int, ...]
    extra: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.rows)

    @property
    def total(self) -> int:
        """Rows of the whole batch."""
        return sum(self.rows)

    def shared_sum(self, x: Tensor) -> Tensor:
        """Sum of `x` over ranks, added in their order: the same bits on every rank."""
        parts = [torch.empty_like(x) for _ in self.rows]
        dist.all_gather(parts, x.contiguous(), group=self.group)
        return torch.stack(parts).sum(dim=0)


class CallSignature(NamedTuple):
    """The arguments of one rank's call, as integers; 0 rows: they were refused.

    All but the numbers of rows and of extra negatives must agree. A number that is no integer is
    sent as `bits_of` it.
    """

    rows: int
    extra_rows: int = 0
    features: int = 0
    dtype: int = 0
    loss: int = 0
    mode: int = 0
    gradient: int = 0
    requires_grad: int = 0
    label_smoothing: int = 0
    local_loss: int = 0
    gather_with_grad: int = 0
    labels: int = 0
    extra_negatives: int = 0
    hard_negatives: int = 0


DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# What the values of some fields mean.
_WORDS = {
    "dtype": [str(dtype).removeprefix("torch.") for dtype in DTYPES],
    "local_loss": ["False", "True"],
    "gather_with_grad": ["False", "True"],
    "labels": ["None", "integers", "floating numbers"],
    "extra_negatives": ["None", "a tensor"],
    "hard_negatives": ["None", "a tensor"],
}


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
        default = dist.group.WORLD
        assert default is not None
        return default
    if not isinstance(group, Group) or dist.get_rank(group) < 0:
        raise ValueError("group: expected a process group that this process is in, got another")
    return group


def agree(group: Group, signature: CallSignature) -> Members:
    """The members, their rows and extra negatives, if the other fields agree on all ranks.

    Raises:
        ValueError: A field differs, or a rank refused its arguments; raised on every rank.
    """
    table = _gather_signatures(group, signature)
    refused = [rank for rank, other in enumerate(table) if not other.rows]
    if refused:
        raise ValueError(f"arguments: expected valid ones on every rank, refused on rank {refused}")
    for k, name in enumerate(CallSignature._fields[2:], start=2):
        if len({other[k] for other in table}) > 1:
            values = [_shown(name, other[k]) for other in table]
            raise ValueError(f"{name}: expected the same on every rank, got {', '.join(values)}")
    rows, extra = (tuple(other[k] for other in table) for k in range(2))
    return Members(group, dist.get_rank(group), rows, extra)


def report_refusal(group: Group) -> None:
    """Take part in `agree` of the other ranks, which raises there."""
    _gather_signatures(group, CallSignature(rows=0))


def _gather_signatures(group: Group, signature: CallSignature) -> list[CallSignature]:
    local = torch.tensor(signature, dtype=torch.int64, device=_device(group))
    signatures = [torch.empty_like(local) for _ in range(dist.get_world_size(group))]
    dist.all_gather(signatures, local, group=group)
    return [CallSignature(*row) for row in torch.stack(signatures).tolist()]


def equal_members(group: Group, rows: int, extra: int) -> Members:
    """Members with `rows` rows and `extra` extra negatives each, without communication."""
    size = dist.get_world_size(group)
    return Members(group, dist.get_rank(group), (rows,) * size, (extra,) * size)


def bits_of(x: float) -> int:
    """The bits of a float64 as an int64."""
    (bits,) = struct.unpack("<q", struct.pack("<d", x))
    return int(bits)


def _shown(name: str, value: int) -> str:
    if name == "label_smoothing":
        return str(*struct.unpack("<d", struct.pack("<q", value)))
    return _WORDS[name][value] if name in _WORDS else str(value)


def _device(group: Group) -> torch.device:
    """Device for small exchanges: the CPU if the group has a backend for it, which is faster."""
    if "cpu" in dist.get_backend_config(group):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


__all__ = [
    "DTYPES",
    "CallSignature",
    "Group",
    "Members",
    "agree",
    "bits_of",
    "equal_members",
    "group_of",
    "report_refusal",
]
